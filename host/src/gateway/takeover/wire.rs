//! What two processes say to each other at a takeover: lines, and the descriptors that one gives the
//! other. Each call has a deadline, and whatever is heard a bound.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The longest line.
const LINE: usize = 256;

/// A connection between the two.
pub(super) struct Wire(UnixStream);

impl Wire {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self(stream))
    }

    /// From now on each call may take so long.
    pub(super) fn within(&self, limit: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(limit))?;
        self.0.set_write_timeout(Some(limit))
    }

    pub(super) fn say(&self, line: &str) -> io::Result<()> {
        (&self.0).write_all(format!("{line}\n").as_bytes())
    }

    /// The next line. Read byte by byte, since what follows may carry a descriptor.
    pub(super) fn hear(&self) -> io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while line.len() < LINE {
            (&self.0).read_exact(&mut byte)?;
            match byte {
                [b'\n'] => return String::from_utf8(line).map_err(io::Error::other),
                [byte] => line.push(byte),
            }
        }
        Err(io::Error::other("a line has no end"))
    }

    /// Hears a line that has to be this one.
    pub(super) fn expect(&self, line: &str) -> io::Result<()> {
        let heard = self.hear()?;
        if heard == line { Ok(()) } else { Err(io::Error::other(format!("heard `{heard}`, not `{line}`"))) }
    }

    /// Gives a descriptor. It comes with a byte, because none travels alone.
    pub(super) fn give(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(self.0.as_fd(), &[IoSlice::new(b"f")], &mut control, SendFlags::empty())?;
        Ok(())
    }

    /// Takes the next descriptor.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        recvmsg(self.0.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        descriptors.flatten().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_and_descriptors_arrive_in_order() {
        let (one, two) = UnixStream::pair().unwrap();
        let (one, two) = (Wire::new(one).unwrap(), Wire::new(two).unwrap());
        let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        one.say("take these").unwrap();
        sockets.iter().for_each(|socket| one.give(socket.as_fd()).unwrap());
        one.say("all").unwrap();
        two.expect("take these").unwrap();
        for socket in &sockets {
            let taken = TcpListener::from(two.take().unwrap());
            assert_eq!(taken.local_addr().unwrap(), socket.local_addr().unwrap());
        }
        assert!(two.expect("nothing").unwrap_err().to_string().contains("`all`"));
        drop(one);
        assert!(two.hear().is_err() && two.take().is_err());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (one, _two) = UnixStream::pair().unwrap();
        let one = Wire::new(one).unwrap();
        one.within(Duration::from_millis(10)).unwrap();
        assert_eq!(one.hear().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
