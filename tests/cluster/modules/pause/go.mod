module agents.hive.dev/tests/cluster/pause

go 1.26
