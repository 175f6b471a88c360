//! The instance's text console, `console.socket` in Tarantool 3's configuration: the only way in while a replica set is not
//! born, for its users are born with it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::decide::birth::{Order, Sight};

/// Asks how far the instance is, and says what to do there. Without comments, since the console takes it as one line.
/// No guard bounds an instance that this code has opened until its own agent has logged in, and that agent may never
/// come. So the instance is read-only again a second after it has its users. Only with these users can other
/// agents log in to instances that have joined, and gain the lock; and they promote nothing before a lease has passed,
/// which is 2 s at least.
const BIRTH: &str = include_str!("birth.lua");

/// The end of each answer.
const END: &[u8] = b"\n...\n";
/// A greeting and one line.
const MOST: usize = 8192;

/// Why the console did not say how far the instance is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsoleError {
    #[error("could not talk to the console")]
    Io(#[source] io::Error),
    #[error("the console did not answer within {0:?}")]
    Timeout(Duration),
    #[error("the console answers {0:?}")]
    Senseless(String),
}

/// What an instance says of itself on its console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its replica set's name.
    pub(crate) replicaset: String,
    /// Its own name.
    pub(crate) instance: String,
    /// How far it is.
    pub(crate) sight: Sight,
}

/// Has the order carried out, if it still makes sense there, and asks how far the instance is.
pub(crate) async fn ask(
    socket: &Path,
    order: Order,
    deadline: Duration,
) -> Result<Word, ConsoleError> {
    let order = match order {
        Order::None => "",
        Order::Lead => "lead",
        Order::Open => "open",
    };
    let line = format!("{}('{order}')\n", BIRTH.trim_end().replace('\n', " "));
    let answer = timeout(deadline, exchange(socket, &line)).await;
    let answer = answer.map_err(|_| ConsoleError::Timeout(deadline))?;
    let answer = answer.map_err(ConsoleError::Io)?;
    let text = String::from_utf8_lossy(&answer);
    word(&text).ok_or_else(|| ConsoleError::Senseless(text.trim().to_owned()))
}

async fn exchange(socket: &Path, line: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(line.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !answer.ends_with(END) && answer.len() < MOST {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
    }
    Ok(answer)
}

fn word(text: &str) -> Option<Word> {
    let said = text.split_once("- tarsec/")?.1.split_whitespace().next()?;
    let mut parts = said.split('/');
    let (state, replicaset, instance) = (parts.next()?, parts.next()?, parts.next()?);
    let uuid = parts.next()?.to_owned();
    let sight = match state {
        "unborn" => Sight::Unborn,
        "closed" => Sight::Closed,
        "born" => Sight::Born { replicaset: uuid },
        "loading" => Sight::Loading,
        _ => return None,
    };
    Some(Word {
        replicaset: replicaset.to_owned(),
        instance: instance.to_owned(),
        sight,
    })
}

#[cfg(test)]
mod tests {
    use super::{BIRTH, Sight, word};

    #[test]
    fn what_the_console_says_is_read_and_anything_else_is_not() {
        let greeting = "Tarantool 3.8.0 (Lua console)\ntype 'help' for interactive help\n";
        let said = |line: &str| word(&format!("{greeting}---\n- {line}\n...\n"));
        let unborn = said("tarsec/unborn/storage-a/storage-a-001/-").unwrap();
        assert_eq!(unborn.sight, Sight::Unborn);
        assert_eq!(unborn.replicaset, "storage-a");
        assert_eq!(unborn.instance, "storage-a-001");
        let born = said("tarsec/born/a/a0/fc4798a8-1524-4ae2-85d2-87683d116485").unwrap();
        let replicaset = "fc4798a8-1524-4ae2-85d2-87683d116485".to_owned();
        assert_eq!(born.sight, Sight::Born { replicaset });
        for line in [
            "error: 'no'",
            "tarsec/",
            "tarsec/unborn/a",
            "tarsec/other/a/a0/-",
            "",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
    }

    #[test]
    fn the_lua_fits_into_one_line() {
        assert!(!BIRTH.contains("--"));
    }
}
