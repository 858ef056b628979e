//! Which of the processor's vector units are used: the widest that there is. In tests each in turn, or the narrower ones would be tried nowhere.

#[cfg(not(test))]
#[inline]
pub(crate) fn level() -> fearless_simd::Level {
    fearless_simd::Level::new()
}

#[cfg(test)]
pub(crate) use each::{level, levels, on_each};

#[cfg(test)]
mod each {
    use std::cell::Cell;

    use fearless_simd::Level;

    thread_local! {
        static CHOSEN: Cell<Option<Level>> = const { Cell::new(None) };
    }

    pub(crate) fn level() -> Level {
        CHOSEN.get().unwrap_or_else(Level::new)
    }

    /// What this processor can be asked to use.
    pub(crate) fn levels() -> Vec<Level> {
        let all = [
            Some(Level::new()),
            #[cfg(target_arch = "x86_64")]
            Level::new().as_avx2().map(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            Level::new().as_sse4_2().map(Level::Sse4_2),
            #[cfg(target_arch = "x86_64")]
            Level::new().as_sse2().map(Level::Sse2),
        ];
        all.into_iter().flatten().collect()
    }

    /// Does the work once with each.
    pub(crate) fn on_each(work: impl Fn()) {
        for level in levels() {
            CHOSEN.set(Some(level));
            work();
        }
        CHOSEN.set(None);
    }
}
