"""The kill -9 test: a node under load is killed at random moments, and nothing that it answered OK for may be lost.

``records`` holds what happened, ``ledger`` what must hold of it, ``publishers`` and ``consumers`` the clients, ``node``
the process that dies, ``campaign`` one node's many lives, ``run`` several of them and the report.
"""
