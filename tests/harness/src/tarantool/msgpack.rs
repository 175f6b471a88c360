//! As much MessagePack as the harness's own iproto client needs, to and from JSON values.
//!
//! Written anew so that tests do not rest on the code they test. Map keys become strings, binary
//! becomes a (lossy) string and extension types a hexadecimal string.

use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// Appends `value`.
pub(crate) fn encode(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(flag) => out.push(if *flag { 0xc3 } else { 0xc2 }),
        Value::Number(number) => encode_number(out, number),
        Value::String(text) => encode_str(out, text),
        Value::Array(items) => {
            out.push(0xdd);
            out.extend((items.len() as u32).to_be_bytes());
            items.iter().for_each(|item| encode(out, item));
        }
        Value::Object(fields) => {
            out.push(0xdf);
            out.extend((fields.len() as u32).to_be_bytes());
            for (key, value) in fields {
                encode_str(out, key);
                encode(out, value);
            }
        }
    }
}

/// Appends an unsigned integer in its shortest form (what iproto's keys are).
pub(crate) fn encode_uint(out: &mut Vec<u8>, number: u64) {
    if number < 0x80 {
        out.push(number as u8);
    } else {
        out.push(0xcf);
        out.extend(number.to_be_bytes());
    }
}

pub(crate) fn encode_str(out: &mut Vec<u8>, text: &str) {
    out.push(0xdb);
    out.extend((text.len() as u32).to_be_bytes());
    out.extend(text.as_bytes());
}

fn encode_number(out: &mut Vec<u8>, number: &Number) {
    if let Some(unsigned) = number.as_u64() {
        encode_uint(out, unsigned);
    } else if let Some(signed) = number.as_i64() {
        out.push(0xd3);
        out.extend(signed.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(number.as_f64().unwrap_or(f64::NAN).to_be_bytes());
    }
}

/// Takes one value off the front of `input`.
pub(crate) fn decode(input: &mut &[u8]) -> Result<Value> {
    let marker = take(input, 1)?[0];
    Ok(match marker {
        0x00..=0x7f => Value::from(marker),
        0x80..=0x8f => decode_map(input, u64::from(marker & 0x0f))?,
        0x90..=0x9f => decode_array(input, u64::from(marker & 0x0f))?,
        0xa0..=0xbf => decode_text(input, u64::from(marker & 0x1f))?,
        0xc0 => Value::Null,
        0xc2 => Value::Bool(false),
        0xc3 => Value::Bool(true),
        0xc4 | 0xd9 => sized(input, 1, decode_text)?,
        0xc5 | 0xda => sized(input, 2, decode_text)?,
        0xc6 | 0xdb => sized(input, 4, decode_text)?,
        0xc7 => sized(input, 1, decode_ext)?,
        0xc8 => sized(input, 2, decode_ext)?,
        0xc9 => sized(input, 4, decode_ext)?,
        0xca => float(f64::from(f32::from_bits(uint(input, 4)? as u32))),
        0xcb => float(f64::from_bits(uint(input, 8)?)),
        0xcc => Value::from(uint(input, 1)?),
        0xcd => Value::from(uint(input, 2)?),
        0xce => Value::from(uint(input, 4)?),
        0xcf => Value::from(uint(input, 8)?),
        0xd0 => Value::from(uint(input, 1)? as u8 as i8),
        0xd1 => Value::from(uint(input, 2)? as u16 as i16),
        0xd2 => Value::from(uint(input, 4)? as u32 as i32),
        0xd3 => Value::from(uint(input, 8)? as i64),
        0xd4..=0xd8 => decode_ext(input, 1 << (marker - 0xd4))?,
        0xdc => sized(input, 2, decode_array)?,
        0xdd => sized(input, 4, decode_array)?,
        0xde => sized(input, 2, decode_map)?,
        0xdf => sized(input, 4, decode_map)?,
        0xe0..=0xff => Value::from(marker as i8),
        0xc1 => return Err(Error::malformed("a MessagePack marker 0xc1")),
    })
}

fn take<'a>(input: &mut &'a [u8], count: u64) -> Result<&'a [u8]> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let short = || Error::malformed("a MessagePack value that ends early");
    let (head, rest) = input.split_at_checked(count).ok_or_else(short)?;
    *input = rest;
    Ok(head)
}

fn uint(input: &mut &[u8], width: u64) -> Result<u64> {
    Ok(take(input, width)?
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn sized(
    input: &mut &[u8],
    width: u64,
    rest: fn(&mut &[u8], u64) -> Result<Value>,
) -> Result<Value> {
    let size = uint(input, width)?;
    rest(input, size)
}

fn float(number: f64) -> Value {
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn decode_text(input: &mut &[u8], size: u64) -> Result<Value> {
    Ok(Value::String(
        String::from_utf8_lossy(take(input, size)?).into_owned(),
    ))
}

fn decode_ext(input: &mut &[u8], size: u64) -> Result<Value> {
    let _kind = take(input, 1)?;
    Ok(Value::String(
        take(input, size)?
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    ))
}

fn decode_array(input: &mut &[u8], size: u64) -> Result<Value> {
    (0..size)
        .map(|_| decode(input))
        .collect::<Result<Vec<_>>>()
        .map(Value::Array)
}

fn decode_map(input: &mut &[u8], size: u64) -> Result<Value> {
    let mut fields = Map::new();
    for _ in 0..size {
        let key = decode(input)?;
        let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
        fields.insert(key, decode(input)?);
    }
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_there_and_back() {
        let value = serde_json::json!([null, true, -7, 300, 1.5, "text", {"key": [1, u64::MAX]}]);
        let mut bytes = Vec::new();
        encode(&mut bytes, &value);
        let mut input = bytes.as_slice();
        assert_eq!(decode(&mut input).unwrap(), value);
        assert!(input.is_empty());
        assert!(decode(&mut &bytes[..bytes.len() - 1]).is_err());
    }
}
