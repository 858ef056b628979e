//! Networks that are trained independently of each other, at once if the caller has the hands for it.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::FitError;

/// Calls its argument once for each number below the count, in any order or at once, and returns when all are done. That is all that the core
/// knows of threads: which of them there are is the caller's business, and the outcome does not depend on it.
pub type Hands = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + Sync;

/// One after the other.
pub fn one_by_one(count: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..count).for_each(work);
}

/// Told of training steps: how many are done, and of how many. Breaks off if it wants to.
pub type Progress<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + Send + 'a;

/// Who does the work, and who is told.
pub struct Training<'a, 'p> {
    hands: &'a Hands,
    told: Mutex<Told<'a, 'p>>,
}

struct Told<'a, 'p> {
    progress: &'a mut Progress<'p>,
    done: u64,
    total: u64,
    stopped: bool,
}

impl<'a, 'p> Training<'a, 'p> {
    /// Of so many steps altogether.
    pub fn new(hands: &'a Hands, total: u64, progress: &'a mut Progress<'p>) -> Self {
        Self { hands, told: Mutex::new(Told { progress, done: 0, total, stopped: false }) }
    }

    /// So many steps more than was thought.
    pub fn more(&self, steps: u64) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).total += steps;
    }

    /// So many steps are done, which may be none. Fails if the work is to be broken off.
    pub fn done(&self, steps: u64) -> Result<(), FitError> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.done += steps;
        let (done, total) = (told.done.min(told.total), told.total);
        // Others are at work still: asked once, it is asked no more.
        told.stopped = told.stopped || (told.progress)(done, total).is_break();
        if told.stopped { Err(FitError::Stopped) } else { Ok(()) }
    }

    /// What `work` makes of each number below `count`, in their order; the first failure if there is one.
    pub fn all<T: Send>(
        &self,
        count: usize,
        work: impl Fn(usize) -> Result<T, FitError> + Sync,
    ) -> Result<Vec<T>, FitError> {
        let made: Vec<Mutex<Option<Result<T, FitError>>>> = (0..count).map(|_| Mutex::new(None)).collect();
        (self.hands)(count, &|at| {
            *made[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(work(at));
        });
        let results = made.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
        results.map(|result| result.unwrap_or(Err(FitError::Stopped))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many threads as there is work, the last begun first.
    fn at_once(count: usize, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| (0..count).rev().for_each(|at| drop(scope.spawn(move || work(at)))));
    }

    #[test]
    fn results_come_in_order_whoever_was_first() {
        let hands: [&Hands; 2] = [&one_by_one, &at_once];
        for hands in hands {
            let mut told = Vec::new();
            let mut progress = |done, total| {
                told.push((done, total));
                ControlFlow::Continue(())
            };
            let training = Training::new(hands, 12, &mut progress);
            let squares = training.all(4, |at| (0..3).try_for_each(|_| training.done(1)).map(|()| at * at)).unwrap();
            assert_eq!(squares, [0, 1, 4, 9]);
            assert_eq!(told, (1..=12).map(|done| (done, 12)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn all_stop_when_one_is_told_to_and_nobody_is_asked_again() {
        let mut asked = 0;
        let mut progress = |done, _| {
            asked += 1;
            if done < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let training = Training::new(&at_once, 4_000, &mut progress);
        let stopped = training.all(4, |_| (0..1_000).try_for_each(|_| training.done(1)));
        assert!(matches!(stopped, Err(FitError::Stopped)));
        assert_eq!(asked, 5);
    }

    #[test]
    fn hands_that_leave_work_undone_are_noticed() {
        let mut progress = |_, _| ControlFlow::Continue(());
        let training = Training::new(&|_, work: &(dyn Fn(usize) + Sync)| work(0), 2, &mut progress);
        assert!(training.all(2, Ok).is_err());
    }
}
