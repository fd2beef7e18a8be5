//! Where one `WebSocket` frame ends and the next begins (RFC 6455 §5.2). Reads headers only; payloads pass unseen.

/// The close frame a server sends when it goes away: status 1001, no reason, unmasked.
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// Follows a stream of frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; 14],
    have: usize,
    payload: u64,
    closing: bool,
}

impl Frames {
    /// Whether the stream stands between two frames.
    pub(crate) fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Whether a close frame has passed: nothing may follow it.
    pub(crate) fn closing(&self) -> bool {
        self.closing
    }

    /// Takes note of bytes that pass.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.scan(bytes, false);
    }

    /// Takes note of bytes up to the first boundary, and says how many those are: 0 when it stands at one.
    pub(crate) fn pass_to_boundary(&mut self, bytes: &[u8]) -> usize {
        self.scan(bytes, true)
    }

    fn scan(&mut self, bytes: &[u8], stop_at_boundary: bool) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if stop_at_boundary && self.at_boundary() {
                return at;
            }
            if self.payload > 0 {
                let rest = (bytes.len() - at) as u64;
                let step = rest.min(self.payload);
                self.payload -= step;
                at += usize::try_from(step).expect("no more than the length of a slice");
                continue;
            }
            self.header[self.have] = bytes[at];
            self.have += 1;
            at += 1;
            if self.have >= 2 && self.have == header_length(self.header[1]) {
                self.payload = payload_length(&self.header);
                self.closing |= self.header[0] & 0x0F == 0x8;
                self.have = 0;
            }
        }
        at
    }
}

fn header_length(second: u8) -> usize {
    let extended = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + extended + mask
}

fn payload_length(header: &[u8; 14]) -> u64 {
    match header[1] & 0x7F {
        126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
        127 => u64::from_be_bytes(header[2..10].try_into().expect("eight bytes")),
        short => u64::from(short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x82];
        match length {
            0..=125 => bytes.push(mask | u8::try_from(length).unwrap()),
            126..=0xFFFF => {
                bytes.push(mask | 0x7E);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 0x7F);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![0xFF; length + if masked { 4 } else { 0 }]);
        bytes
    }

    #[test]
    fn boundaries_are_found_however_the_stream_is_cut() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 3];
        for masked in [false, true] {
            let stream: Vec<u8> = lengths.iter().flat_map(|n| frame(*n, masked)).collect();
            let ends: Vec<usize> = lengths
                .iter()
                .scan(0, |end, n| {
                    *end += frame(*n, masked).len();
                    Some(*end)
                })
                .collect();
            for cut in [1, 2, 3, 7, 1000, stream.len()] {
                let (mut frames, mut passed) = (Frames::default(), 0);
                for piece in stream.chunks(cut) {
                    frames.pass(piece);
                    passed += piece.len();
                    assert_eq!(frames.at_boundary(), ends.contains(&passed), "{passed} of {ends:?}, cut {cut}");
                }
            }
        }
    }

    #[test]
    fn the_rest_of_a_frame_is_told_from_the_next_one() {
        let (first, second) = (frame(10, false), frame(5, false));
        let mut frames = Frames::default();
        assert_eq!(frames.pass_to_boundary(&first), 0);
        frames.pass(&first[..4]);
        let rest = [&first[4..], &second].concat();
        assert_eq!(frames.pass_to_boundary(&rest), first.len() - 4);
        assert!(frames.at_boundary() && !frames.closing());
        frames.pass(&GOING_AWAY);
        assert!(frames.at_boundary() && frames.closing());
    }
}
