//! Answers that go on: the log, for example.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};

use super::{Client, ClientError, runtime, transport};

impl Client {
    /// Asks for a path, and hands each piece of the answer to `take` when it comes, until the answer ends, `take`
    /// has enough (it returns false), or `until` is over.
    ///
    /// # Errors
    /// There is no connection, or another answer than 200. What ends later has been an answer.
    pub fn stream(
        &self,
        path: &str,
        query: &[(&str, String)],
        until: impl Future<Output = ()>,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        let (request, url) = self.request(&Method::GET, path, query, Bytes::new())?;
        let fail = transport(&Method::GET, &url);
        let runtime = runtime().map_err(&fail)?;
        let pieces = async {
            let mut response = self.begin(request).await.map_err(&fail)?;
            let status = response.status();
            if status != StatusCode::OK {
                let body = response.into_body().collect().await.map_err(|e| fail(e.to_string()))?.to_bytes();
                let body = String::from_utf8_lossy(&body).trim_end().to_owned();
                return Err(ClientError::Status { status, body });
            }
            while let Some(Ok(frame)) = response.body_mut().frame().await {
                if frame.data_ref().is_some_and(|piece| !take(piece)) {
                    break;
                }
            }
            Ok(())
        };
        runtime.block_on(async {
            tokio::select! {
                ended = pieces => ended,
                () = until => Ok(()),
            }
        })
    }
}
