//! A queue of jobs for threads, which ends when every job that was taken is finished.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many new jobs wait; each may hold a directory open.
const JOBS_MAX: usize = 128;

/// A queue of jobs. Clones are one.
#[derive(Debug)]
pub(crate) struct Jobs<J>(Arc<Shared<J>>);

#[derive(Debug)]
struct Shared<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<J> {
    fresh: VecDeque<J>,
    /// Jobs that come back go first: they were begun already.
    again: VecDeque<J>,
    /// How many were taken and neither finished nor given back.
    taken: usize,
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
        let state = State { fresh, again, taken: 0, complete: false, abandoned: false };
        Jobs(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Adds a job, once there is room for it. Says whether anybody will take it.
    pub(crate) fn push(&self, job: J) -> bool {
        let mut state = self.wait_while(|state| state.fresh.len() >= JOBS_MAX && !state.abandoned);
        state.fresh.push_back(job);
        self.0.changed.notify_all();
        !state.abandoned
    }

    /// Says that all jobs are pushed.
    pub(crate) fn complete(&self) {
        self.state().complete = true;
        self.0.changed.notify_all();
    }

    /// Says that nobody takes jobs any more.
    pub(crate) fn abandon(&self) {
        self.state().abandoned = true;
        self.0.changed.notify_all();
    }

    /// Takes a job, waiting for one; `None` when all are finished.
    pub(crate) fn take(&self) -> Option<J> {
        let mut state = self.wait_while(|state| {
            let is_over = state.complete && state.taken == 0;
            state.fresh.is_empty() && state.again.is_empty() && !is_over && !state.abandoned
        });
        if state.abandoned {
            return None;
        }
        let job = state.again.pop_front().or_else(|| state.fresh.pop_front())?;
        state.taken += 1;
        self.0.changed.notify_all();
        Some(job)
    }

    /// Says that a job that was taken is done with, well or badly.
    pub(crate) fn finish(&self) {
        self.state().taken -= 1;
        self.0.changed.notify_all();
    }

    /// Gives a job back that was taken.
    pub(crate) fn give_back(&self, job: J) {
        let mut state = self.state();
        state.taken -= 1;
        state.again.push_back(job);
        self.0.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&State<J>) -> bool) -> MutexGuard<'_, State<J>> {
        let guard = self.0.changed.wait_while(self.state(), |state| condition(state));
        guard.unwrap_or_else(PoisonError::into_inner)
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
    fn nobody_waits_for_those_who_left() {
        let jobs = Jobs::new();
        jobs.abandon();
        assert!((0..2 * JOBS_MAX).all(|job| !jobs.push(job)));
        assert_eq!(jobs.take(), None);
    }
}
