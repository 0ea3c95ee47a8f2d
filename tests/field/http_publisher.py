"""Publishes each body until it is accepted, and prints it then. Arguments: host:port, topic."""

import http.client
import sys
import time

address, topic = sys.argv[1:]
number = 0
while True:
    connection = http.client.HTTPConnection(address, timeout=1)
    try:
        connection.request("POST", f"/pub?topic={topic}", f"body-{number}".encode())
        if connection.getresponse().status == 200:
            print(f"body-{number}", flush=True)
            number += 1
    except OSError as error:
        print(error, file=sys.stderr)
    finally:
        connection.close()
    time.sleep(0.01)
