use std::sync::{Arc, Mutex};

use super::*;

/// A terminal that understands what [`Screen`] sends, and nothing else.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<State>>);

struct State {
    size: Size,
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    sent: usize,
    is_ours: bool,
}

impl Fake {
    pub(crate) fn of(columns: usize, rows: usize) -> Self {
        let size = Size { columns, rows };
        let cells = vec![vec![' '; columns]; rows];
        Self(Arc::new(Mutex::new(State { size, cells, at: (0, 0), sent: 0, is_ours: false })))
    }

    pub(crate) fn resize(&self, columns: usize, rows: usize) {
        let mut state = self.0.lock().unwrap();
        state.size = Size { columns, rows };
        // What stood there is anywhere now.
        state.cells = vec![vec!['#'; columns]; rows];
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        state.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    /// How many bytes were sent since this was asked last.
    pub(crate) fn sent(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().sent)
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.0.lock().unwrap().is_ours
    }
}

impl State {
    fn obey(&mut self, code: &str) {
        let (row, column) = self.at;
        match code {
            "[?1049h" => self.is_ours = true,
            "[?1049l" => self.is_ours = false,
            "[?25l" | "[?25h" | "[?7l" | "[?7h" | "[32m" | "[33m" | "[31m" | "[0m" => {}
            "[2J" => self.cells = vec![vec![' '; self.size.columns]; self.size.rows],
            "[K" => self.cells[row].iter_mut().skip(column).for_each(|cell| *cell = ' '),
            place => {
                let place = place.strip_prefix('[').and_then(|place| place.strip_suffix(";1H"));
                let row: usize = place.unwrap_or_else(|| panic!("{code:?}")).parse().unwrap();
                assert!(row >= 1 && row <= self.size.rows, "{row}");
                self.at = (row - 1, 0);
            }
        }
    }
}

impl Terminal for Fake {
    fn size(&self) -> Size {
        self.0.lock().unwrap().size
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.sent += text.len();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c == '\x1b' {
                let mut code = String::new();
                for c in rest.by_ref() {
                    code.push(c);
                    if c.is_ascii_alphabetic() {
                        break;
                    }
                }
                state.obey(&code);
                continue;
            }
            assert!(!c.is_control(), "{c:?} in {text:?}");
            let (row, column) = state.at;
            assert!(column < state.size.columns, "beyond the edge: {text:?}");
            state.cells[row][column] = c;
            state.at.1 += 1;
        }
        Ok(())
    }
}

fn lines(all: &[&str]) -> Vec<String> {
    all.iter().map(|&line| line.to_owned()).collect()
}

#[test]
fn what_differs_is_sent_and_the_terminal_is_given_back() {
    let terminal = Fake::of(20, 4);
    let mut screen = Screen::begin(terminal.clone()).unwrap();
    assert!(terminal.is_ours());
    screen.show(&lines(&["one", "a long line that does not fit", "three", "four", "five"])).unwrap();
    assert_eq!(terminal.lines(), ["one", "a long line that doe", "three", "four"]);
    terminal.sent();
    screen.show(&lines(&["one", "two", "three"])).unwrap();
    assert_eq!(terminal.lines(), ["one", "two", "three", ""]);
    assert!(terminal.sent() < 40, "two lines");
    screen.show(&lines(&["one", "two", "three"])).unwrap();
    assert_eq!(terminal.sent(), 0);
    drop(screen);
    assert!(!terminal.is_ours());
}

#[test]
fn another_size_has_everything_drawn_anew() {
    let terminal = Fake::of(20, 4);
    let mut screen = Screen::begin(terminal.clone()).unwrap();
    let all = lines(&["0123456789abcdefghij", "b", "c", "d"]);
    screen.show(&all).unwrap();
    terminal.resize(10, 2);
    screen.show(&all).unwrap();
    assert_eq!(terminal.lines(), ["0123456789", "b"]);
    terminal.resize(30, 6);
    screen.show(&all).unwrap();
    assert_eq!(terminal.lines(), ["0123456789abcdefghij", "b", "c", "d", "", ""]);
    terminal.resize(1, 1);
    screen.show(&all).unwrap();
    assert_eq!(terminal.lines(), ["0"]);
}

#[test]
fn nothing_that_a_terminal_obeys_reaches_it_and_wide_characters_are_counted() {
    let terminal = Fake::of(12, 3);
    let mut screen = Screen::begin(terminal.clone()).unwrap();
    let hostile =
        lines(&["a\x1b[2J\x1b]0;x\x07b", "\t\u{9b}H\r\n\u{202e}z", "\x1b[31mred\x1b[0m 漢字漢字漢字"]);
    screen.show(&hostile).unwrap();
    assert_eq!(terminal.lines(), ["a·[2J·]0;x·b", " ·H· ·z", "red 漢字漢字"]);
    assert_eq!(cut("\x1b[31mlong and red", 4), "\x1b[31mlong\x1b[0m", "a colour ends with its line");
}
