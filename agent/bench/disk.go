package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/smarteros/deaddrop/render/drop"
)

// diskFolder makes a folder on a disk: in parent, or else in the first usual place that is on
// one. It returns "" where there is none.
func diskFolder(parent string) (string, error) {
	if parent != "" {
		if is, err := drop.Inspect(parent); err != nil || !is.OnDisk {
			return "", cmp.Or(err, fmt.Errorf("folder %s is not on a disk", parent))
		}
		return os.MkdirTemp(parent, "deaddrop-bench-")
	}
	home, _ := os.UserHomeDir()
	for _, parent := range []string{os.TempDir(), home, "."} {
		if is, err := drop.Inspect(parent); parent == "" || err != nil || !is.OnDisk {
			continue
		}
		if folder, err := os.MkdirTemp(parent, "deaddrop-bench-"); err == nil {
			return filepath.Abs(folder)
		}
	}
	return "", nil
}

// filesOnDisk prints the medians of writing many files with package drop, and of a floor that
// is as durable, but syncs one file after the other. They take turns: other users of the disk
// slow down both.
func filesOnDisk(parent string) error {
	const turns = 5
	kinds := []struct {
		what  string
		write func(dir string, n int) error
		walls []time.Duration
	}{{what: "floor: 1,000 files on disk", write: writeOneByOne}, {what: "drop: 1,000 files on disk", write: writeBatch}}
	for range turns {
		for i := range kinds {
			dir, err := os.MkdirTemp(parent, "files-")
			if err != nil {
				return err
			}
			start := time.Now()
			err = kinds[i].write(dir, many)
			kinds[i].walls = append(kinds[i].walls, time.Since(start))
			if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
				return fmt.Errorf("%s: %w", kinds[i].what, err)
			}
		}
	}
	for _, kind := range kinds {
		slices.Sort(kind.walls)
		fmt.Printf("%-38s %8.1f ms\n", kind.what, float64(kind.walls[turns/2].Microseconds())/1e3)
	}
	return nil
}

// content is that of the file with this number.
func content(i int) []byte {
	return fmt.Appendf(nil, "API_KEY=\"%026d\"\nMODEL=\"large\"\nTEMPERATURE=\"0.7\"\nURL=\"https://nexa.example/%d\"\n", i, i)
}

func writeBatch(dir string, n int) error {
	var files []drop.File
	for i := range n {
		files = append(files, drop.File{Path: filepath.Join(dir, strconv.Itoa(i)), Content: content(i), Mode: 0o600})
	}
	var errs []error
	for _, result := range drop.Write(files) {
		errs = append(errs, result.Err)
	}
	return errors.Join(errs...)
}

func writeOneByOne(dir string, n int) error {
	for i := range n {
		path := filepath.Join(dir, strconv.Itoa(i))
		f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(content(i))
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
