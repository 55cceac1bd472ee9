package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log"
	"net"
	"os"
	"strings"

	"github.com/gomodule/redigo/redis"
	ldredis "github.com/launchdarkly/go-server-sdk-redis-redigo/v3"
	"github.com/launchdarkly/go-server-sdk/v7/subsystems"
)

const maxIdle = 4

type tlsFiles struct{ ca, cert, key string }

// The store knows URLs of single servers; what it does not know is a pool of connections that we dial.
func dataStore(o options) *ldredis.StoreBuilder[subsystems.PersistentDataStore] {
	store := ldredis.DataStore()
	scheme, rest, _ := strings.Cut(o.redisURL, "://")
	switch scheme {
	case "redis":
		return store.URL(o.redisURL)
	case "rediss":
		return store.URL(o.redisURL).DialOptions(redis.DialTLSConfig(tlsConfig(o.tls)))
	case "redis+unix":
		return store.Pool(pool(func() (redis.Conn, error) { return redis.Dial("unix", rest) }))
	case "redis+sentinel":
		sentinels, master, _ := strings.Cut(rest, "/")
		return store.Pool(pool(func() (redis.Conn, error) {
			return dialMaster(strings.Split(sentinels, ","), master, o.sentinelPassword)
		}))
	default:
		log.Fatalf("not a URL of Redis that this store can be given: %s", o.redisURL)
		return nil
	}
}

func pool(dial func() (redis.Conn, error)) *redis.Pool {
	return &redis.Pool{MaxIdle: maxIdle, Dial: dial}
}

func dialMaster(sentinels []string, master, password string) (redis.Conn, error) {
	failure := errors.New("no Sentinel is named")
	for _, address := range sentinels {
		var found []string
		if found, failure = askSentinel(address, master, password); failure == nil {
			return redis.Dial("tcp", net.JoinHostPort(found[0], found[1]))
		}
	}
	return nil, failure
}

func askSentinel(address, master, password string) ([]string, error) {
	sentinel, err := redis.Dial("tcp", address, redis.DialPassword(password))
	if err != nil {
		return nil, err
	}
	defer sentinel.Close()
	found, err := redis.Strings(sentinel.Do("SENTINEL", "get-master-addr-by-name", master))
	if err == nil && len(found) != 2 {
		err = errors.New("the Sentinel does not know the master")
	}
	return found, err
}

func tlsConfig(files tlsFiles) *tls.Config {
	authority, err := os.ReadFile(files.ca)
	if err != nil {
		log.Fatal(err)
	}
	own, err := tls.LoadX509KeyPair(files.cert, files.key)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12}
}
