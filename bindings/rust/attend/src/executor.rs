//! The program's own threads instead of the library's.

use crate::{check_version, sys, Error};
use std::os::raw::c_void;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::null;
use std::sync::atomic::{AtomicU64, Ordering};

/// Threads of the program, on which calls then compute.
///
/// ```
/// struct Rayon;
///
/// impl attend::Executor for Rayon {
///     fn workers(&self) -> i32 {
///         rayon::current_num_threads() as i32
///     }
///     fn run(&self, tasks: i32, task: &(dyn Fn(i32) + Sync)) {
///         rayon::scope(|scope| {
///             for i in 0..tasks {
///                 scope.spawn(move |_| task(i));
///             }
///         });
///     }
/// }
///
/// attend::set_executor(Some(&Rayon))?;
/// # attend::set_executor(None)?;
/// # Ok::<(), attend::Error>(())
/// ```
pub trait Executor: Sync {
    /// The most tasks of a [`run`](Executor::run); 0 = no bound. Asked once, by [`set_executor`].
    fn workers(&self) -> i32 {
        0
    }

    /// Calls `task(i)` for each i in 0..tasks, on any threads and in any order, one after the other if need be. What it
    /// leaves out the calling thread does afterwards; a second call with the same i does nothing. Tasks never wait for
    /// each other, and end soon after the work is done.
    ///
    /// A panic is caught, after the hook has reported it, and the calling thread does what is left: nothing unwinds into
    /// the library, and the result is right.
    fn run(&self, tasks: i32, task: &(dyn Fn(i32) + Sync));
}

type Set = &'static dyn Executor;

extern "C" fn run(context: *mut c_void, tasks: i32, task: sys::attend_task, argument: *mut c_void) {
    // A safe program may ask for a task twice, or for one that does not exist; the library would take that amiss.
    struct Once {
        begun: AtomicU64,
        tasks: i32,
        task: sys::attend_task,
        argument: *mut c_void,
    }
    // Safety: the library's tasks may be called from any thread.
    unsafe impl Sync for Once {}
    impl Once {
        fn call(&self, i: i32) {
            if !(0..self.tasks.min(64)).contains(&i) {
                return;
            }
            let bit = 1 << i;
            if self.begun.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
                // Safety: once for this i, and within the library's call of `run`, which our borrow does not outlive.
                unsafe { (self.task)(self.argument, i) }
            }
        }
    }
    // Safety: set_executor's, which is never freed.
    let executor: Set = unsafe { *context.cast::<Set>() };
    let once = Once {
        begun: AtomicU64::new(0),
        tasks,
        task,
        argument,
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        executor.run(tasks, &|i| once.call(i));
    }));
    if let Err(payload) = result {
        std::mem::forget(payload); // its drop might panic too
    }
}

/// Let all calls of the process compute on this executor's threads, `None` = on the library's own again. `threads` in the
/// options and [`set_threads`](crate::set_threads) bound how many of them, and 1 means the calling thread alone.
///
/// Meant to be called once or a few times: since calls on other threads may still be at work with the one before, each
/// call with an executor keeps some 40 bytes for good.
pub fn set_executor(executor: Option<&'static dyn Executor>) -> Result<(), Error> {
    check_version()?;
    let executor = match executor {
        None => null(),
        Some(executor) => {
            let workers = executor.workers();
            let context: *mut Set = Box::into_raw(Box::new(executor));
            Box::into_raw(Box::new(sys::attend_executor {
                workers,
                run: Some(run),
                context: context.cast(),
                ..sys::attend_executor::init()
            })) as *const _
        }
    };
    // Nothing else can be wrong.
    Error::check(unsafe { sys::attend_set_executor(executor) })
        .map_err(|error| error.because("its workers must be 0 or more.".into()))
}
