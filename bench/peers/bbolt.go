// SPDX-License-Identifier: Apache-2.0

// bbolt's side of bench/kv.py: each line on standard input is a chunk of work,
// the answer is its duration in nanoseconds (and what else the work counts).
// Databases stay open between chunks, as on the other sides; "close" ends one.
package main

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

const batchOfKeys = 50000 // a transaction, at most, where a database is filled

var (
	bucket = []byte("bench")
	open   = map[string]*bolt.DB{}
	keys   [][]byte
	serial int
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func database(path string) *bolt.DB {
	if db := open[path]; db != nil {
		return db
	}
	db, err := bolt.Open(path, 0600, &bolt.Options{FreelistType: bolt.FreelistArrayType})
	must(err)
	db.MaxBatchDelay = 2 * time.Millisecond
	open[path] = db
	return db
}

func loadKeys(path string) {
	file, err := os.Open(path)
	must(err)
	defer file.Close()
	keys = nil
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		keys = append(keys, []byte(lines.Text()))
	}
}

var sink []byte

func get(db *bolt.DB, n int) {
	must(db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		for i := 0; i < n; i++ {
			sink = append([]byte(nil), b.Get(keys[rand.Intn(len(keys))])...)
		}
		return nil
	}))
}

func beginGet(db *bolt.DB, n int) {
	for i := 0; i < n; i++ {
		tx, err := db.Begin(false)
		must(err)
		sink = append([]byte(nil), tx.Bucket(bucket).Get(keys[rand.Intn(len(keys))])...)
		must(tx.Rollback())
	}
}

func openGet(path string, n int) {
	for i := 0; i < n; i++ {
		db, err := bolt.Open(path, 0600, &bolt.Options{FreelistType: bolt.FreelistArrayType})
		must(err)
		get(db, 1)
		must(db.Close())
	}
}

func scan(db *bolt.DB, n int) {
	for i := 0; i < n; i++ {
		count := 0
		must(db.View(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucket).Cursor()
			for k, _ := c.First(); k != nil; k, _ = c.Next() {
				count++
			}
			return nil
		}))
	}
}

func fill(path string, sync bool) {
	db, err := bolt.Open(path, 0600, &bolt.Options{FreelistType: bolt.FreelistArrayType})
	must(err)
	db.NoSync = !sync
	value := make([]byte, 1024)
	sorted := append([][]byte(nil), keys...)
	sort.Slice(sorted, func(i, j int) bool { return string(sorted[i]) < string(sorted[j]) })
	for len(sorted) > 0 {
		n := batchOfKeys
		if n > len(sorted) {
			n = len(sorted)
		}
		must(db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucket)
			must(err)
			for _, key := range sorted[:n] {
				must(b.Put(key, value))
			}
			return nil
		}))
		sorted = sorted[n:]
	}
	must(db.Close())
}

func put(db *bolt.DB, n int) {
	value := make([]byte, 1024)
	for i := 0; i < n; i++ {
		must(db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(bucket).Put(keys[rand.Intn(len(keys))], value)
		}))
	}
}

func record(db *bolt.DB, n int) {
	config := make([]byte, 4096)
	state := make([]byte, 512)
	for i := 0; i < n; i++ {
		serial++
		id := []byte(fmt.Sprintf("%064x", rand.Uint64()))
		name := []byte(fmt.Sprintf("container-%d", serial))
		must(db.Update(func(tx *bolt.Tx) error {
			for _, registry := range []string{"id-registry", "all-ctrs"} {
				b, err := tx.CreateBucketIfNotExists([]byte(registry))
				must(err)
				must(b.Put(id, name))
			}
			b, err := tx.CreateBucketIfNotExists([]byte("name-registry"))
			must(err)
			must(b.Put(name, id))
			all, err := tx.CreateBucketIfNotExists([]byte("ctr"))
			must(err)
			ctr, err := all.CreateBucket(id)
			must(err)
			must(ctr.Put([]byte("config"), config))
			must(ctr.Put([]byte("state"), state))
			_, err = ctr.CreateBucket([]byte("dependencies"))
			return err
		}))
	}
}

func batch(db *bolt.DB, threads, each int) {
	value := make([]byte, 1024)
	var group sync.WaitGroup
	for t := 0; t < threads; t++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < each; i++ {
				key := keys[rand.Intn(len(keys))]
				must(db.Batch(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key, value) }))
			}
		}()
	}
	group.Wait()
}

// Opens, commits and closes until the time is up: a process that polls.
func poll(path string, seconds float64) int {
	commits := 0
	until := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(until) {
		db, err := bolt.Open(path, 0600, &bolt.Options{Timeout: time.Until(until) + 60*time.Millisecond})
		if err != nil {
			break
		}
		must(db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(bucket).Put([]byte("bbolt"), []byte(strconv.Itoa(commits)))
		}))
		must(db.Close())
		commits++
	}
	return commits
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	must(err)
	return n
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		extra := ""
		start := time.Now()
		switch words[0] {
		case "keys":
			loadKeys(words[1])
		case "close":
			must(open[words[1]].Close())
			delete(open, words[1])
		case "open":
			database(words[1])
		case "get":
			get(database(words[1]), number(words[2]))
		case "begin-get":
			beginGet(database(words[1]), number(words[2]))
		case "open-get":
			openGet(words[1], number(words[2]))
		case "scan":
			scan(database(words[1]), number(words[2]))
		case "fill":
			fill(words[1], words[2] == "sync")
		case "put":
			put(database(words[1]), number(words[2]))
		case "record":
			record(database(words[1]), number(words[2]))
		case "batch":
			batch(database(words[1]), number(words[2]), number(words[3]))
		case "poll":
			seconds, err := strconv.ParseFloat(words[2], 64)
			must(err)
			extra = fmt.Sprintf(" %d", poll(words[1], seconds))
		}
		fmt.Printf("%d%s\n", time.Since(start).Nanoseconds(), extra)
	}
}
