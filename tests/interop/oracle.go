// SPDX-License-Identifier: Apache-2.0

// The real bbolt, driven by lines on standard input, as the oracle of the
// store's tests. Each command answers with one line (dump: with the dump and a
// line "."), "OK" or "ERR text".
//
//	check FILE                      bbolt's own consistency check
//	dump FILE                       the canonical dump
//	digest FILE                     the SHA-256 of the canonical dump
//	write FILE OPTIONS              then operations up to "commit" or "rollback"
//	count FILE BUCKET SECONDS       increments a counter in one transaction each
//
// Operations name a bucket by its path in hex, parts joined by "/", "-" for
// the root: create PATH, drop PATH, put PATH KEY VALUE, del PATH KEY,
// seq PATH N. Keys and values are hex; "." is the empty value.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
)

func options(readOnly bool) *bolt.Options {
	return &bolt.Options{Timeout: 60 * time.Second, ReadOnly: readOnly}
}

func check(path string) error {
	db, err := bolt.Open(path, 0600, options(true))
	if err != nil {
		return err
	}
	defer db.Close()
	var faults []string
	err = db.View(func(tx *bolt.Tx) error {
		for fault := range tx.Check() {
			faults = append(faults, fault.Error())
		}
		return nil
	})
	if err == nil && len(faults) > 0 {
		err = fmt.Errorf("%s", strings.Join(faults, "; "))
	}
	return err
}

func dumpBucket(w io.Writer, b *bolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v != nil {
			_, err := fmt.Fprintf(w, "K %x %x\n", k, v)
			return err
		}
		inner := b.Bucket(k)
		if inner == nil {
			_, err := fmt.Fprintf(w, "K %x \n", k)
			return err
		}
		fmt.Fprintf(w, "B %d %x %d\n", len(k), k, inner.Sequence())
		if err := dumpBucket(w, inner); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, "E")
		return err
	})
}

func dump(path string, w io.Writer) error {
	db, err := bolt.Open(path, 0600, options(true))
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			fmt.Fprintf(w, "B %d %x %d\n", len(name), name, b.Sequence())
			if err := dumpBucket(w, b); err != nil {
				return err
			}
			_, err := fmt.Fprintln(w, "E")
			return err
		})
	})
}

func unhex(s string) []byte {
	if s == "." {
		return []byte{}
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

type container interface {
	Bucket([]byte) *bolt.Bucket
	CreateBucketIfNotExists([]byte) (*bolt.Bucket, error)
	DeleteBucket([]byte) error
}

func walk(tx *bolt.Tx, parts []string) container {
	var at container = tx
	for _, part := range parts {
		inner := at.Bucket(unhex(part))
		if inner == nil {
			return nil
		}
		at = inner
	}
	return at
}

func apply(tx *bolt.Tx, words []string) error {
	parts := strings.Split(words[1], "/")
	parent := walk(tx, parts[:len(parts)-1])
	if parent == nil {
		return fmt.Errorf("no bucket %s", words[1])
	}
	last := unhex(parts[len(parts)-1])
	switch words[0] {
	case "create":
		_, err := parent.CreateBucketIfNotExists(last)
		return err
	case "drop":
		return parent.DeleteBucket(last)
	}
	b := parent.Bucket(last)
	if b == nil {
		return fmt.Errorf("no bucket %s", words[1])
	}
	switch words[0] {
	case "put":
		return b.Put(unhex(words[2]), unhex(words[3]))
	case "del":
		return b.Delete(unhex(words[2]))
	case "seq":
		n, err := strconv.ParseUint(words[2], 10, 64)
		if err != nil {
			return err
		}
		return b.SetSequence(n)
	}
	return fmt.Errorf("unknown operation %s", words[0])
}

func write(path string, words []string, in *bufio.Scanner) error {
	opt := options(false)
	for _, word := range words {
		switch {
		case word == "nofreelist":
			opt.NoFreelistSync = true
		case strings.HasPrefix(word, "pagesize="):
			opt.PageSize, _ = strconv.Atoi(word[len("pagesize="):])
		}
	}
	db, err := bolt.Open(path, 0600, opt)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, word := range words {
		if word == "nosync" {
			db.NoSync = true
		}
	}
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	var failed error
	for in.Scan() {
		line := in.Text()
		switch {
		case line == "rollback":
			return tx.Rollback()
		case line == "commit" && failed == nil:
			return tx.Commit()
		case line == "commit":
			tx.Rollback()
			return failed
		case failed == nil:
			failed = apply(tx, strings.Fields(line))
		}
	}
	tx.Rollback()
	return io.ErrUnexpectedEOF
}

func count(path, bucket string, seconds float64) (int, error) {
	done := 0
	until := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(until) {
		db, err := bolt.Open(path, 0600, options(false))
		if err != nil {
			return done, err
		}
		err = db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			if err != nil {
				return err
			}
			var next [8]byte
			if old := b.Get([]byte("n")); old != nil {
				binary.BigEndian.PutUint64(next[:], binary.BigEndian.Uint64(old)+1)
			} else {
				binary.BigEndian.PutUint64(next[:], 1)
			}
			return b.Put([]byte("n"), next[:])
		})
		db.Close()
		if err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

func answer(out *bufio.Writer, text string, err error) {
	if err != nil {
		fmt.Fprintf(out, "ERR %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
	} else {
		fmt.Fprintf(out, "OK%s\n", text)
	}
	out.Flush()
}

func guarded(f func() (string, error)) (text string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 1<<28)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	for in.Scan() {
		words := strings.Fields(in.Text())
		if len(words) < 2 {
			continue
		}
		text, err := guarded(func() (string, error) {
			switch words[0] {
			case "check":
				return "", check(words[1])
			case "dump":
				var text bytes.Buffer
				err := dump(words[1], &text)
				if err == nil {
					out.Write(text.Bytes())
					out.WriteString(".\n")
				}
				return "", err
			case "digest":
				hash := sha256.New()
				err := dump(words[1], hash)
				return fmt.Sprintf(" %x", hash.Sum(nil)), err
			case "write":
				return "", write(words[1], words[2:], in)
			case "count":
				seconds, err := strconv.ParseFloat(words[3], 64)
				if err != nil {
					return "", err
				}
				n, err := count(words[1], words[2], seconds)
				return fmt.Sprintf(" %d", n), err
			}
			return "", fmt.Errorf("unknown command %s", words[0])
		})
		answer(out, text, err)
	}
}
