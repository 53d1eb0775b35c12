//! A queue of jobs for threads, which ends when every job that was taken is finished.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many new jobs wait; each may hold a directory open.
const JOBS_MAX: usize = 128;

/// A queue of jobs. Clones are one.
#[derive(Debug)]
pub(crate) struct Jobs<J>(Arc<Shared<J>>);

#[derive(Debug)]
struct Shared<J> {
    state: Mutex<State<J>>,
    /// Wakes who takes.
    filled: Condvar,
    /// Wakes who pushes, and not for each place: a thread is woken for many jobs.
    emptied: Condvar,
}

#[derive(Debug)]
struct State<J> {
    fresh: VecDeque<J>,
    /// Jobs that come back go first: they were begun already.
    again: VecDeque<J>,
    /// How many were taken and neither finished nor given back.
    taken: usize,
    /// How many threads wait for a job: waking nobody costs a system call as well.
    takers: usize,
    /// No fresh ones come any more.
    complete: bool,
    /// Nobody works any more.
    abandoned: bool,
}

impl<J> Clone for Jobs<J> {
    fn clone(&self) -> Jobs<J> {
        Jobs(Arc::clone(&self.0))
    }
}

impl<J> Jobs<J> {
    pub(crate) fn new() -> Jobs<J> {
        let (fresh, again) = (VecDeque::new(), VecDeque::new());
        let state = State { fresh, again, taken: 0, takers: 0, complete: false, abandoned: false };
        Jobs(Arc::new(Shared { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new() }))
    }

    /// Adds a job, once there is room for it. Says whether anybody will take it.
    pub(crate) fn push(&self, job: J) -> bool {
        let is_full = |state: &mut State<J>| state.fresh.len() >= JOBS_MAX && !state.abandoned;
        let waited = self.0.emptied.wait_while(self.state(), is_full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.fresh.push_back(job);
        self.wake_takers(&state);
        !state.abandoned
    }

    /// Says that all jobs are pushed.
    pub(crate) fn complete(&self) {
        self.state().complete = true;
        self.0.filled.notify_all();
    }

    /// Says that nobody takes jobs any more.
    pub(crate) fn abandon(&self) {
        self.state().abandoned = true;
        self.0.filled.notify_all();
        self.0.emptied.notify_all();
    }

    /// Takes a job, waiting for one; `None` when all are finished.
    pub(crate) fn take(&self) -> Option<J> {
        self.take_within(Duration::MAX)
    }

    /// Takes a job, waiting no longer than `pause` for one; `None` when none came, or all are finished.
    pub(crate) fn take_within(&self, pause: Duration) -> Option<J> {
        let mut state = self.state();
        state.takers += 1;
        let waited = self.0.filled.wait_timeout_while(state, pause, |state| {
            let is_over = state.complete && state.taken == 0;
            state.fresh.is_empty() && state.again.is_empty() && !is_over && !state.abandoned
        });
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.takers -= 1;
        if state.abandoned {
            return None;
        }
        let job = state.again.pop_front().or_else(|| state.fresh.pop_front())?;
        state.taken += 1;
        if state.fresh.len() == JOBS_MAX / 2 {
            self.0.emptied.notify_all();
        }
        Some(job)
    }

    /// Says that a job that was taken is done with, well or badly.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        state.taken -= 1;
        if state.complete && state.taken == 0 {
            self.wake_takers(&state);
        }
    }

    /// Gives a job back that was taken.
    pub(crate) fn give_back(&self, job: J) {
        let mut state = self.state();
        state.taken -= 1;
        state.again.push_back(job);
        self.wake_takers(&state);
    }

    fn wake_takers(&self, state: &State<J>) {
        if state.takers > 0 {
            self.0.filled.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_comes_back_is_taken_again_before_the_end() {
        let jobs = Jobs::new();
        assert!(jobs.push(1) && jobs.push(2));
        jobs.complete();
        let (first, second) = (jobs.take().expect("a job"), jobs.take());
        assert_eq!(second, Some(2));
        jobs.finish();
        let waiting = std::thread::spawn({
            let jobs = jobs.clone();
            move || jobs.take()
        });
        jobs.give_back(first);
        assert_eq!(waiting.join().expect("no panic"), Some(1));
        jobs.finish();
        assert_eq!(jobs.take(), None);
    }

    #[test]
    fn a_job_that_does_not_come_is_not_waited_for_longer_than_asked() {
        let jobs = Jobs::new();
        assert_eq!(jobs.take_within(Duration::ZERO), None::<i32>);
        assert!(jobs.push(1));
        assert_eq!(jobs.take_within(Duration::ZERO), Some(1));
    }

    #[test]
    fn a_full_queue_takes_more_once_there_is_room() {
        let jobs = Jobs::new();
        let pushing = std::thread::spawn({
            let jobs = jobs.clone();
            move || (0..5 * JOBS_MAX).all(|job| jobs.push(job))
        });
        assert!((0..5 * JOBS_MAX).all(|job| jobs.take() == Some(job)));
        assert!(pushing.join().expect("no panic"));
    }

    #[test]
    fn nobody_waits_for_those_who_left() {
        let jobs = Jobs::new();
        jobs.abandon();
        assert!((0..2 * JOBS_MAX).all(|job| !jobs.push(job)));
        assert_eq!(jobs.take(), None);
    }
}
