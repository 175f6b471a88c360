//! A bounded walk over MessagePack that was sent by somebody else.
//!
//! It allocates no more than [`MAX_DEPTH`] counters, recurses never, and takes a length for granted only when that
//! many bytes are there. Format bytes: the MessagePack specification, "Formats".

use rmp::Marker;

/// How deep arrays and maps may nest. Tarantool's own encoder stops at 128 (`encode_max_depth`).
pub const MAX_DEPTH: usize = 128;

/// Bytes that no Tarantool sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A value, or a collection's announced length, reaches past the end of its frame.
    #[error("a value reaches past the end of its frame")]
    Truncated,
    /// Collections nest deeper than [`MAX_DEPTH`].
    #[error("values nest deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A value of another type stands where the protocol wants this one.
    #[error("expected {wanted}")]
    Unexpected {
        /// What should have been there.
        wanted: &'static str,
    },
    /// The byte 0xc1, which MessagePack never uses.
    #[error("a reserved format byte")]
    Reserved,
    /// The frame's length exceeds [`MAX_FRAME_LEN`](super::MAX_FRAME_LEN).
    #[error("a frame of {len} bytes is over the limit")]
    FrameTooLarge {
        /// The announced length, in bytes.
        len: u64,
    },
    /// The frame goes on after its body.
    #[error("a frame goes on after its body")]
    TrailingBytes,
}

/// A value without its content: what must be read or skipped after the format byte and the length.
enum Head {
    Uint(u64),
    Str(usize),
    Array(usize),
    Map(usize),
    Other { payload: usize },
}

/// Reads values from the front of a slice.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn read_uint(&mut self, wanted: &'static str) -> Result<u64, Malformed> {
        if let Head::Uint(value) = self.head()? {
            Ok(value)
        } else {
            Err(Malformed::Unexpected { wanted })
        }
    }

    /// A map's key. A key of another type than unsigned is passed over like any unknown key: `None`.
    pub(super) fn read_key(&mut self) -> Result<Option<u64>, Malformed> {
        let mut value = Reader::new(self.skip_value()?);
        Ok(if let Head::Uint(key) = value.head()? {
            Some(key)
        } else {
            None
        })
    }

    pub(super) fn read_str(&mut self, wanted: &'static str) -> Result<&'a [u8], Malformed> {
        if let Head::Str(len) = self.head()? {
            self.take(len)
        } else {
            Err(Malformed::Unexpected { wanted })
        }
    }

    pub(super) fn read_array_len(&mut self, wanted: &'static str) -> Result<usize, Malformed> {
        if let Head::Array(len) = self.head()? {
            Ok(len)
        } else {
            Err(Malformed::Unexpected { wanted })
        }
    }

    pub(super) fn read_map_len(&mut self, wanted: &'static str) -> Result<usize, Malformed> {
        if let Head::Map(len) = self.head()? {
            Ok(len)
        } else {
            Err(Malformed::Unexpected { wanted })
        }
    }

    /// Passes over one value, whatever it is, and returns its bytes: they are well-formed and nest within the limit.
    pub(super) fn skip_value(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.rest;
        let mut open: Vec<usize> = Vec::new();
        loop {
            let items = match self.head()? {
                Head::Uint(_) => 0,
                Head::Str(len) | Head::Other { payload: len } => {
                    self.take(len)?;
                    0
                }
                Head::Array(len) => len,
                Head::Map(len) => len.saturating_mul(2),
            };
            if items > 0 {
                if open.len() == MAX_DEPTH {
                    return Err(Malformed::TooDeep);
                }
                open.push(items);
            } else {
                while let Some(left) = open.last_mut() {
                    *left -= 1;
                    if *left > 0 {
                        break;
                    }
                    open.pop();
                }
            }
            if open.is_empty() {
                return Ok(&start[..start.len() - self.rest.len()]);
            }
        }
    }

    fn head(&mut self) -> Result<Head, Malformed> {
        let head = match Marker::from_u8(self.uint(1)? as u8) {
            Marker::FixPos(value) => Head::Uint(u64::from(value)),
            Marker::U8 => Head::Uint(self.uint(1)?),
            Marker::U16 => Head::Uint(self.uint(2)?),
            Marker::U32 => Head::Uint(self.uint(4)?),
            Marker::U64 => Head::Uint(self.uint(8)?),
            Marker::Null | Marker::True | Marker::False | Marker::FixNeg(_) => {
                Head::Other { payload: 0 }
            }
            Marker::I8 => Head::Other { payload: 1 },
            Marker::I16 => Head::Other { payload: 2 },
            Marker::I32 | Marker::F32 => Head::Other { payload: 4 },
            Marker::I64 | Marker::F64 => Head::Other { payload: 8 },
            Marker::FixStr(len) => Head::Str(usize::from(len)),
            Marker::Str8 => Head::Str(self.len(1)?),
            Marker::Str16 => Head::Str(self.len(2)?),
            Marker::Str32 => Head::Str(self.len(4)?),
            Marker::Bin8 => Head::Other {
                payload: self.len(1)?,
            },
            Marker::Bin16 => Head::Other {
                payload: self.len(2)?,
            },
            Marker::Bin32 => Head::Other {
                payload: self.len(4)?,
            },
            // An extension's payload follows a byte that names its type.
            Marker::FixExt1 => Head::Other { payload: 2 },
            Marker::FixExt2 => Head::Other { payload: 3 },
            Marker::FixExt4 => Head::Other { payload: 5 },
            Marker::FixExt8 => Head::Other { payload: 9 },
            Marker::FixExt16 => Head::Other { payload: 17 },
            Marker::Ext8 => Head::Other {
                payload: self.len(1)?.saturating_add(1),
            },
            Marker::Ext16 => Head::Other {
                payload: self.len(2)?.saturating_add(1),
            },
            Marker::Ext32 => Head::Other {
                payload: self.len(4)?.saturating_add(1),
            },
            Marker::FixArray(len) => Head::Array(self.items(usize::from(len), 1)?),
            Marker::Array16 => Head::Array(self.len(2).and_then(|len| self.items(len, 1))?),
            Marker::Array32 => Head::Array(self.len(4).and_then(|len| self.items(len, 1))?),
            Marker::FixMap(len) => Head::Map(self.items(usize::from(len), 2)?),
            Marker::Map16 => Head::Map(self.len(2).and_then(|len| self.items(len, 2))?),
            Marker::Map32 => Head::Map(self.len(4).and_then(|len| self.items(len, 2))?),
            Marker::Reserved => return Err(Malformed::Reserved),
        };
        Ok(head)
    }

    /// Every item takes a byte at least, so a length that the rest cannot hold is refused before any code believes it.
    fn items(&self, len: usize, values_per_item: usize) -> Result<usize, Malformed> {
        if len.saturating_mul(values_per_item) <= self.rest.len() {
            Ok(len)
        } else {
            Err(Malformed::Truncated)
        }
    }

    fn len(&mut self, width: usize) -> Result<usize, Malformed> {
        usize::try_from(self.uint(width)?).map_err(|_too_long| Malformed::Truncated)
    }

    fn uint(&mut self, width: usize) -> Result<u64, Malformed> {
        let bytes = self.take(width)?;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}
