// Command etcd is the store of the test cluster; a package of its own, as Go would name the program of
// go.etcd.io/etcd/server/v3 "server".
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
