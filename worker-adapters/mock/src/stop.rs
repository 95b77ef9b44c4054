//! Stop texts: found across tokens, never sent.

/// Passes text on as soon as it cannot be the beginning of a stop text.
#[derive(Debug)]
pub(crate) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

/// What a further piece of text makes known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// This much can be sent; it may be nothing.
    Text(String),
    /// A stop text came: the last text to send, and the stop text.
    Stopped(String, String),
}

impl StopFilter {
    /// A filter, unless there is nothing to look for.
    pub(crate) fn new(stops: &[String]) -> Option<Self> {
        let stops: Vec<String> = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        (!stops.is_empty()).then(|| Self { stops, held: String::new() })
    }

    pub(crate) fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop))).min();
        if let Some((at, stop)) = first {
            let stop = stop.clone();
            self.held.truncate(at);
            return Passed::Stopped(std::mem::take(&mut self.held), stop);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let kept = self.held.split_off(self.held.len() - keep);
        Passed::Text(std::mem::replace(&mut self.held, kept))
    }

    /// What was held back when nothing more comes.
    pub(crate) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that `stop` begins with.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, proptest};

    use super::{Passed, StopFilter};

    #[test]
    fn holds_back_what_could_be_a_stop() {
        let mut filter = StopFilter::new(&[" 9".to_owned()]).expect("a filter");
        assert_eq!(filter.push(" "), Passed::Text(String::new()));
        assert_eq!(filter.push("8,"), Passed::Text(" 8,".to_owned()));
        assert_eq!(filter.push("x "), Passed::Text("x".to_owned()));
        assert_eq!(filter.push("9"), Passed::Stopped(String::new(), " 9".to_owned()));
    }

    fn letters(longest: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!['a', 'b', '東']), 1..=longest).prop_map(String::from_iter)
    }

    proptest! {
        /// However the text is cut, what is sent is the text before the first stop.
        #[test]
        fn cuts_do_not_matter(pieces in prop::collection::vec(letters(3), 0..12), stop in letters(4)) {
            let whole: String = pieces.concat();
            let mut filter = StopFilter::new(std::slice::from_ref(&stop)).expect("a filter");
            let mut sent = String::new();
            let mut stopped = false;
            for piece in &pieces {
                match filter.push(piece) {
                    Passed::Text(text) => sent.push_str(&text),
                    Passed::Stopped(text, _) => {
                        sent.push_str(&text);
                        stopped = true;
                        break;
                    }
                }
            }
            if !stopped {
                sent.push_str(&filter.rest());
            }
            assert_eq!(sent, whole.split(stop.as_str()).next().unwrap_or_default());
            assert_eq!(stopped, whole.contains(&stop));
        }
    }
}
