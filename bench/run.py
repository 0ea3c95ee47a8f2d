"""All rows, for the real nsqd and pynsqd in turn (`make bench`); or for one running broker with --address."""

import deferred_storm
import deliver_fin
import drain_disk_backlog
import durability_cost
import fairness
import fan_out
import fsync_publishers
import http_pub
import http_pub_connection_each
import idle_connections
import layers
import many_topics
import mixed_bodies
import mpub
import nsqd_tools
import other_topic_latency
import pub_latency
import pub_one_in_flight
import publish_to_deliver_latency
import publish_to_fin
import requeue_storm
import scaling
import ten_million_waiting
from load.command import main

ROWS = (
    mpub.ROW,
    deliver_fin.ROW,
    publish_to_fin.ROW,
    pub_one_in_flight.ROW,
    pub_latency.ROW,
    fsync_publishers.ROW,
    http_pub.ROW,
    http_pub_connection_each.ROW,
    fan_out.ROW,
    mixed_bodies.ROW,
    many_topics.ROW,
    requeue_storm.ROW,
    deferred_storm.ROW,
    drain_disk_backlog.ROW,
    publish_to_deliver_latency.ROW,
    other_topic_latency.ROW,
    fairness.ROW,
    idle_connections.ROW,
    nsqd_tools.ROW,
    *ten_million_waiting.ROWS,
    durability_cost.ROW,
    *scaling.ROWS,
    *layers.ROWS,
)

if __name__ == "__main__":
    main(*ROWS)
