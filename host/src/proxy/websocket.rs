//! Where frames of a WebSocket end, as far as a router must know: to say goodbye between two of them
//! (RFC 6455, sections 5.2 and 5.5.1).

/// "Going away" (section 7.4.1), as a server sends it.
pub(super) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What there is of a frame's header.
    header: [u8; 14],
    read: usize,
    /// Bytes of the payload still to come.
    payload: u64,
}

impl Frames {
    /// These bytes went by.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let taken = usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload -= taken as u64;
                bytes = &bytes[taken..];
                continue;
            }
            self.header[self.read] = bytes[0];
            self.read += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.payload_of_header() {
                (self.read, self.payload) = (0, payload);
            }
        }
    }

    /// Whether a frame may begin here.
    pub(super) fn between_frames(&self) -> bool {
        self.read == 0 && self.payload == 0
    }

    /// Of a header that is complete.
    fn payload_of_header(&self) -> Option<u64> {
        if self.read < 2 {
            return None;
        }
        let extended = match self.header[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        if self.read < 2 + extended + mask {
            return None;
        }
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        Some(match extended {
            0 => u64::from(self.header[1] & 0x7F),
            extended => number(&self.header[2..2 + extended]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], ends: &[usize]) {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            frames.pass(&[*byte]);
            if frames.between_frames() {
                found.push(at + 1);
            }
        }
        assert_eq!(found, ends);
        let mut at_once = Frames::default();
        at_once.pass(bytes);
        assert_eq!(at_once.between_frames(), ends.last() == Some(&bytes.len()));
    }

    #[test]
    fn frames_end_where_they_end() {
        check(&[0x81, 0x02, b'h', b'i', 0x89, 0x00], &[4, 6]);
        check(&[0x81, 0x82, 1, 2, 3, 4, b'h', b'i', 0x81], &[8]);
        let mut medium = vec![0x82, 126, 0x01, 0x00];
        medium.extend([0; 256]);
        check(&medium, &[260]);
        let mut long = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
        long.extend(vec![0; 65536]);
        check(&long, &[65546]);
    }
}
