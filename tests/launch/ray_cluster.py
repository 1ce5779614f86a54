"""A Ray cluster of two nodes on this machine, one CPU each, the second with a GPU that isn't there.

`python ray_cluster.py`; prints one line of JSON: the address and the process number of the second node. All its
sockets listen on the loopback address. Ends with its standard input.
"""

import json
import os
import sys

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    head = {"num_cpus": 1, "include_dashboard": False}
    for left in (2, 1, 0):  # Ray gives a node half a minute to start, which a busy machine may lack
        try:
            cluster = Cluster(initialize_head=True, head_node_args=head)
            second = cluster.add_node(num_cpus=1, num_gpus=1)
            break
        except Exception:
            if not left:
                raise
    (raylet,) = second.all_processes["raylet"]
    print(json.dumps({"address": cluster.address, "second": raylet.process.pid}), flush=True)
    sys.stdin.read()
    cluster.shutdown()
