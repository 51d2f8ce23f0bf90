package render

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// memory measures f in bytes: peak is the largest live heap that a garbage collection found
// while f ran, without what was live before, and sum is all that f allocated.
func memory(f func()) (peak, sum uint64) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	live := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // Collections are frequent, so that few peaks are missed.
	runtime.GC()
	before := live()
	var atStart, atEnd runtime.MemStats
	runtime.ReadMemStats(&atStart)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			peak = max(peak, live())
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	runtime.ReadMemStats(&atEnd)
	close(done)
	<-ended
	return max(peak, before) - before, atEnd.TotalAlloc - atStart.TotalAlloc
}
