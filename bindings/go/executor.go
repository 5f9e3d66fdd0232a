package attend

/*
#include "shim.h"
*/
import "C"

import (
	"sync"
	"sync/atomic"
)

// Goroutines that help calls, and how many there may be, of all calls together.
var helpers, mostHelpers atomic.Int32

var settingExecutor sync.Mutex

// SetExecutor lets calls compute on goroutines, up to workers each with the calling one, instead of threads that OpenMP
// starts; 0 is OpenMP again. All calls together have at most workers-1 goroutines beside those that call, so any number
// may call at once, with AllThreads too: what is left without one the calling goroutine does, and it waits for none that
// has not begun. It does not change that a call without Threads runs on the goroutine's own thread; AllThreads is then
// what SetThreads says, else workers. The library takes no more than 64.
func SetExecutor(workers int) error {
	settingExecutor.Lock()
	defer settingExecutor.Unlock()
	err := failure(C.shim_set_executor(clamped(workers)))
	if err == nil && workers > 0 {
		mostHelpers.Store(int32(clamped(workers)) - 1)
	}
	return err
}

func helper() bool {
	if helpers.Add(1) > mostHelpers.Load() {
		helpers.Add(-1)
		return false
	}
	return true
}

// The calling goroutine takes part: when its own task ends, so does the work, but for what others have begun. Addresses
// are numbers here, since a goroutine that comes too late still has them when what they point to is gone.
//
//export attendRunOnGoroutines
func attendRunOnGoroutines(tasks C.int32_t, task, argument C.uintptr_t) {
	var (
		over    bool
		lock    sync.Mutex // of over
		running sync.WaitGroup
	)
	for i := C.int32_t(1); i < tasks && helper(); i++ {
		go func(i C.int32_t) {
			defer helpers.Add(-1)
			lock.Lock()
			late := over
			if !late {
				running.Add(1)
			}
			lock.Unlock()
			if !late {
				C.shim_task(task, argument, i)
				running.Done()
			}
		}(i)
	}
	C.shim_task(task, argument, 0)
	lock.Lock()
	over = true
	lock.Unlock()
	running.Wait()
}
