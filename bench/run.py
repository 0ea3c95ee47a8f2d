"""All rows, for the real nsqd and pynsqd in turn (`make bench`); or for one running broker with --address."""

import deliver_fin
import drain_disk_backlog
import fan_out
import http_pub
import http_pub_connection_each
import idle_connections
import mpub
import nsqd_tools
import pub_one_in_flight
import publish_to_deliver_latency
import publish_to_fin
from load.command import main

if __name__ == "__main__":
    main(
        mpub.ROW,
        deliver_fin.ROW,
        publish_to_fin.ROW,
        pub_one_in_flight.ROW,
        http_pub.ROW,
        http_pub_connection_each.ROW,
        fan_out.ROW,
        drain_disk_backlog.ROW,
        publish_to_deliver_latency.ROW,
        idle_connections.ROW,
        nsqd_tools.ROW,
    )
