//! Tarantool: instances, replica sets and the harness's own client for them.

mod declaration;
mod instance;
mod iproto;
mod lag;
mod msgpack;
mod program;
mod replica_set;
pub mod sources;

pub use declaration::Declaration;
pub use instance::{Instance, Standing};
pub use iproto::{Connection, Login, Replies, Reply, Request, Requests};
pub use program::{Version, tarantool};
pub(crate) use replica_set::make_uuid;
pub use replica_set::{ReplicaSet, ReplicaSetOptions};
