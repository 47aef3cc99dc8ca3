"""A program per client, in its language; it runs with the client's own packages, and with nothing of ours but `driver`.

Each runs its scenarios in order and prints a line of JSON for each (`driver.run`).
"""
