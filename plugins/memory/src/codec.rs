//! Texts in a row, each after its length: what the values of state are made of.

use message_flow_sdk::routing_table::TableError;

const NONE: u32 = u32::MAX;

/// Writes texts and numbers in a row.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.option(Some(text))
    }

    pub(crate) fn option(&mut self, text: Option<&str>) -> &mut Self {
        let len = text.map_or(NONE, |text| u32::try_from(text.len()).unwrap_or(NONE - 1));
        self.0.extend(len.to_le_bytes());
        self.0.extend(text.unwrap_or_default().bytes());
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }
}

/// Reads them back.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn text(&mut self) -> Result<String, TableError> {
        self.option()?.ok_or_else(torn)
    }

    pub(crate) fn option(&mut self) -> Result<Option<String>, TableError> {
        let len = u32::from_le_bytes(*self.take()?);
        if len == NONE {
            return Ok(None);
        }
        let (text, rest) = self.0.split_at_checked(len as usize).ok_or_else(torn)?;
        self.0 = rest;
        Ok(Some(str::from_utf8(text).map_err(|_| torn())?.to_owned()))
    }

    pub(crate) fn number(&mut self) -> Result<u64, TableError> {
        Ok(u64::from_le_bytes(*self.take()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], TableError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(torn)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn torn() -> TableError {
    TableError::Invalid("a value in its state is not one that this adapter writes".to_owned())
}
