//! Reads answers where they arrived and compares them with what is expected, byte by byte, without keeping them.

use bytes::Bytes;
use plugd_core::wire::{CHANNEL_MAIN, End, FRAME_HEADER_LEN, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind};

use super::tally::Trouble;
use crate::{ClientError, Status};

/// What came of one request.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
    Failed(Status),
}

/// What ends an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Each answer is a call of its own, and its END ends it.
    Call,
    /// All answers are messages of one call: as many bytes as are expected, or where anything is, a message.
    Message,
}

/// That the server takes no other call on a connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Closing {
    /// It said so at the end of a call that failed, which was told already.
    Told,
    /// What is to be told if there was more to ask.
    Untold(Trouble),
}

/// The answers on one connection, read as their bytes come, however those are cut.
#[derive(Debug)]
pub(crate) struct Answers {
    unit: Unit,
    /// The bytes on the main channel of each answer; `None` takes any.
    expected: Option<Bytes>,
    limits: FrameLimits,
    awaited: Awaited,
    part: Part,
    /// The begun hello, frame header or END.
    begun: Vec<u8>,
    /// How many bytes of the answer came so far, where there are any to compare with.
    len: usize,
    is_wrong: bool,
    /// How the one call ended whose messages are the answers.
    ended: Option<Status>,
    closing: Option<Closing>,
}

/// How many answers are still to come.
#[derive(Debug)]
struct Awaited(u64);

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum Part {
    Hello,
    Header,
    Payload { header: FrameHeader, left: usize },
}

impl Answers {
    /// The answers on a connection whose hello was read already.
    pub(crate) fn new(unit: Unit, expected: Option<Bytes>, limits: FrameLimits) -> Answers {
        Answers {
            unit,
            expected,
            limits,
            awaited: Awaited(0),
            part: Part::Header,
            begun: Vec::new(),
            len: 0,
            is_wrong: false,
            ended: None,
            closing: None,
        }
    }

    /// The answers on a connection that begins with the server's hello.
    pub(crate) fn with_hello(self) -> Answers {
        Answers { part: Part::Hello, ..self }
    }

    /// How the call ended whose messages are the answers, once it has.
    pub(crate) fn ended(&mut self) -> Option<Status> {
        self.ended.take()
    }

    /// How the server has closed the connection, once it has.
    pub(crate) fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// How many answers are still to come.
    pub(crate) fn awaited(&self) -> u64 {
        self.awaited.0
    }

    /// Awaits `count` more answers.
    pub(crate) fn await_more(&mut self, count: u64) {
        self.awaited.0 += count;
    }

    /// Awaits `count` answers no more, since nothing was sent for them.
    pub(crate) fn await_fewer(&mut self, count: u64) {
        self.awaited.0 -= count;
    }

    /// Takes what has arrived, and tells each verdict that it completes.
    ///
    /// What follows the server's last word is not looked at.
    pub(crate) fn take(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Verdict)) -> Result<(), ClientError> {
        while !bytes.is_empty() && self.closing.is_none() {
            bytes = match self.part {
                Part::Hello => self.take_hello(bytes)?,
                Part::Header => self.take_header(bytes, &mut tell)?,
                Part::Payload { header, left } => self.take_payload(header, left, bytes, &mut tell)?,
            };
        }
        Ok(())
    }

    fn take_hello<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], ClientError> {
        let (taken, rest) = bytes.split_at(bytes.len().min(HELLO_LEN - self.begun.len()));
        self.begun.extend_from_slice(taken);
        if Hello::decode(&self.begun)?.is_some() {
            self.begun.clear();
            self.part = Part::Header;
        }
        Ok(rest)
    }

    fn take_header<'b>(&mut self, bytes: &'b [u8], tell: &mut impl FnMut(Verdict)) -> Result<&'b [u8], ClientError> {
        let (header, rest) = match bytes.split_first_chunk::<FRAME_HEADER_LEN>() {
            Some((header, rest)) if self.begun.is_empty() => (*header, rest),
            _ => {
                let (taken, rest) = bytes.split_at(bytes.len().min(FRAME_HEADER_LEN - self.begun.len()));
                self.begun.extend_from_slice(taken);
                let Some(header) = self.begun.first_chunk().copied() else { return Ok(rest) };
                self.begun.clear();
                (header, rest)
            }
        };
        let header = FrameHeader::decode(header, self.limits)?;
        match header.payload_len {
            0 => self.end_frame(header, tell)?,
            len => self.part = Part::Payload { header, left: len as usize },
        }
        Ok(rest)
    }

    fn take_payload<'b>(
        &mut self,
        header: FrameHeader,
        left: usize,
        bytes: &'b [u8],
        tell: &mut impl FnMut(Verdict),
    ) -> Result<&'b [u8], ClientError> {
        let (taken, rest) = bytes.split_at(bytes.len().min(left));
        match header.kind {
            Kind::Data if header.channel == CHANNEL_MAIN => self.compare(taken, tell)?,
            Kind::End => self.begun.extend_from_slice(taken),
            _ => {}
        }
        match left - taken.len() {
            0 => self.end_frame(header, tell)?,
            left => self.part = Part::Payload { header, left },
        }
        Ok(rest)
    }

    fn compare(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Verdict)) -> Result<(), ClientError> {
        self.awaited.check()?;
        let Some(expected) = &self.expected else { return Ok(()) };
        if self.unit == Unit::Call {
            let end = self.len + bytes.len();
            self.is_wrong |= expected.get(self.len..end) != Some(bytes);
            self.len = end;
            return Ok(());
        }
        while !bytes.is_empty() {
            self.awaited.check()?;
            let end = expected.len().min(self.len + bytes.len());
            let (taken, rest) = bytes.split_at(end - self.len);
            self.is_wrong |= expected[self.len..end] != *taken;
            (self.len, bytes) = (end, rest);
            if end == expected.len() {
                let verdict = if self.is_wrong { Verdict::Wrong } else { Verdict::Right };
                (self.len, self.is_wrong) = (0, false);
                self.awaited.answer(verdict, tell)?;
            }
        }
        Ok(())
    }

    fn end_frame(&mut self, header: FrameHeader, tell: &mut impl FnMut(Verdict)) -> Result<(), ClientError> {
        self.part = Part::Header;
        match header.kind {
            Kind::Head => Ok(()),
            Kind::Data => {
                let is_message = header.channel == CHANNEL_MAIN && !header.more;
                match is_message && self.unit == Unit::Message && self.expected.is_none() {
                    true => self.awaited.answer(Verdict::Right, tell),
                    false => Ok(()),
                }
            }
            Kind::End => self.end_call(header.close, tell),
            kind => Err(ClientError::Protocol(format!("{} not allowed from a server", kind.name()))),
        }
    }

    fn end_call(&mut self, close: bool, tell: &mut impl FnMut(Verdict)) -> Result<(), ClientError> {
        let payload = std::mem::take(&mut self.begun);
        let status = End::decode(&payload)?.status;
        if self.unit == Unit::Message {
            self.ended = Some(status);
            return Ok(());
        }
        if close {
            self.closing = Some(match (status.is_ok(), self.awaited.0) {
                (true, _) => Closing::Untold(Trouble::closed()),
                (false, 0) => Closing::Untold(Trouble::of_status(&status)),
                (false, _) => Closing::Told,
            });
            if self.awaited.0 == 0 {
                return Ok(());
            }
        }
        let is_whole = self.expected.as_ref().is_none_or(|expected| expected.len() == self.len);
        let is_right = !std::mem::take(&mut self.is_wrong) && is_whole;
        self.len = 0;
        let verdict = match status.is_ok() {
            false => Verdict::Failed(status),
            true if is_right => Verdict::Right,
            true => Verdict::Wrong,
        };
        self.awaited.answer(verdict, tell)
    }
}

impl Awaited {
    fn answer(&mut self, verdict: Verdict, tell: &mut impl FnMut(Verdict)) -> Result<(), ClientError> {
        self.check()?;
        self.0 -= 1;
        tell(verdict);
        Ok(())
    }

    fn check(&self) -> Result<(), ClientError> {
        match self.0 {
            0 => Err(ClientError::Protocol("more answers than requests".to_owned())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: FrameHeader, payload: &[u8]) -> Vec<u8> {
        [&FrameHeader { payload_len: payload.len() as u32, ..header }.encode()[..], payload].concat()
    }

    fn data(payload: &[u8]) -> Vec<u8> {
        frame(FrameHeader::new(Kind::Data, 0), payload)
    }

    fn end(status: Status) -> Vec<u8> {
        frame(FrameHeader::new(Kind::End, 0), &End::from(status).encode())
    }

    /// The verdicts on `bytes`, which are the same however they are cut.
    fn verdicts(unit: Unit, expected: Option<&'static [u8]>, bytes: &[u8]) -> Vec<Verdict> {
        let read = |piece_len: usize| {
            let mut answers = Answers::new(unit, expected.map(Bytes::from_static), FrameLimits::default());
            let mut verdicts = Vec::new();
            answers.await_more(100);
            for piece in bytes.chunks(piece_len) {
                answers.take(piece, |verdict| verdicts.push(verdict)).expect("good frames");
            }
            verdicts
        };
        let whole = read(bytes.len());
        for piece_len in 1..bytes.len() {
            assert_eq!(read(piece_len), whole, "in pieces of {piece_len}");
        }
        whole
    }

    #[test]
    fn calls_are_judged_at_their_end() {
        let refused = Status::not_found("x", "y");
        let side = frame(FrameHeader { channel: 1, ..FrameHeader::new(Kind::Data, 0) }, b"side");
        let bytes = [
            [data(b"ab"), data(b""), side, data(b"c"), end(Status::ok())].concat(),
            [data(b"abd"), end(Status::ok())].concat(),
            [data(b"ab"), end(Status::ok())].concat(),
            [data(b"abcd"), end(Status::ok())].concat(),
            end(refused.clone()),
            [data(b"abc"), end(Status::ok())].concat(),
        ];
        assert_eq!(
            verdicts(Unit::Call, Some(b"abc"), &bytes.concat()),
            [Verdict::Right, Verdict::Wrong, Verdict::Wrong, Verdict::Wrong, Verdict::Failed(refused), Verdict::Right]
        );
    }

    #[test]
    fn messages_are_judged_by_their_length_wherever_frames_end() {
        let bytes = [data(b"abca"), data(b"b"), data(b"xabcabc")].concat();
        let (right, wrong) = (Verdict::Right, Verdict::Wrong);
        assert_eq!(verdicts(Unit::Message, Some(b"abc"), &bytes), [right, wrong, Verdict::Right, Verdict::Right]);
    }

    #[test]
    fn where_anything_is_right_a_message_is_an_answer() {
        let more = frame(FrameHeader { more: true, ..FrameHeader::new(Kind::Data, 0) }, b"a");
        let bytes = [more, data(b"b"), data(b"")].concat();
        assert_eq!(verdicts(Unit::Message, None, &bytes), [Verdict::Right, Verdict::Right]);
        assert_eq!(verdicts(Unit::Call, None, &[data(b"z"), end(Status::ok())].concat()), [Verdict::Right]);
    }

    #[test]
    fn what_no_server_says_breaks_the_protocol() {
        let limits = FrameLimits::default();
        let mut answers = Answers::new(Unit::Call, None, limits);
        let open = frame(FrameHeader::new(Kind::Open, 0), b"{}");
        assert!(matches!(answers.take(&open, |_| {}), Err(ClientError::Protocol(_))));
        let mut answers = Answers::new(Unit::Call, None, limits).with_hello();
        assert!(matches!(answers.take(b"HTTP/1.1 400 no", |_| {}), Err(ClientError::Protocol(_))));
    }

    #[test]
    fn a_hello_comes_first_where_it_is_awaited() {
        let hello = Hello { data_len_max: 1 << 20 }.encode();
        let mut answers = Answers::new(Unit::Call, None, FrameLimits::default()).with_hello();
        answers.await_more(1);
        let mut count = 0;
        for byte in [&hello[..], &end(Status::ok())].concat() {
            answers.take(&[byte], |_| count += 1).expect("a hello and an end");
        }
        assert_eq!((count, answers.awaited()), (1, 0));
    }

    #[test]
    fn what_nobody_asked_for_is_not_judged() {
        let whole = [data(b"abc"), end(Status::ok())].concat();
        for (unit, bytes) in [(Unit::Call, whole.repeat(2)), (Unit::Message, data(b"abca"))] {
            let mut answers = Answers::new(unit, Some(Bytes::from_static(b"abc")), FrameLimits::default());
            answers.await_more(1);
            let mut count = 0;
            assert!(matches!(answers.take(&bytes, |_| count += 1), Err(ClientError::Protocol(_))), "{unit:?}");
            assert_eq!(count, 1, "{unit:?}");
        }
    }

    #[test]
    fn a_last_word_is_told_once() {
        let draining = Status::unavailable("draining", "x");
        let closing = |awaited, status: &Status| {
            let mut answers = Answers::new(Unit::Call, None, FrameLimits::default());
            answers.await_more(awaited);
            let last = FrameHeader { close: true, ..FrameHeader::new(Kind::End, 0) };
            let last = frame(last, &End::from(status.clone()).encode());
            let mut verdicts = Vec::new();
            answers.take(&last.repeat(2), |verdict| verdicts.push(verdict)).expect("a last word, and what is not read");
            (verdicts, answers.closing().expect("a last word").clone())
        };
        let failed = Verdict::Failed(draining.clone());
        assert_eq!(closing(0, &draining), (Vec::new(), Closing::Untold(Trouble::of_status(&draining))));
        assert_eq!(closing(2, &draining), (vec![failed], Closing::Told));
        assert_eq!(closing(2, &Status::ok()), (vec![Verdict::Right], Closing::Untold(Trouble::closed())));
    }
}
