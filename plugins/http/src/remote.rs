//! The call over `wasi:http`.

#[cfg(not(target_arch = "wasm32"))]
use crate::settings::Settings;

/// Natively there is nobody to ask.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn ask(_settings: &Settings, _question: &[u8]) -> Result<Vec<u8>, String> {
    Err("a native build has no network".to_owned())
}

#[cfg(target_arch = "wasm32")]
pub(crate) use wasi::ask;

#[cfg(target_arch = "wasm32")]
mod wasi {
    use wasip2::{
        http::{
            outgoing_handler,
            types::{
                ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
                Scheme,
            },
        },
        io::streams::StreamError,
    };

    use crate::settings::Settings;

    /// An answer has at most so many bytes.
    const ANSWER: usize = 64 << 10;
    /// `wasi:io` writes at most this at once.
    const CHUNK: usize = 4096;

    /// Posts a question and gives what is answered with 200.
    pub(crate) fn ask(settings: &Settings, question: &[u8]) -> Result<Vec<u8>, String> {
        let request = request(settings)?;
        let body = request.body().map_err(|()| "the request has no body".to_owned())?;
        let answer = outgoing_handler::handle(request, Some(options(settings))).map_err(failed)?;
        send(body, question)?;
        answer.subscribe().block();
        let answer = answer.get().ok_or("it did not answer")?;
        read(&answer.map_err(|()| "its answer was taken".to_owned())?.map_err(failed)?)
    }

    fn request(settings: &Settings) -> Result<OutgoingRequest, String> {
        let uri = &settings.uri;
        let headers = [("content-type", "application/json"), ("accept", "application/json")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let request = OutgoingRequest::new(Fields::from_list(&headers).map_err(|error| error.to_string())?);
        let scheme = if uri.tls { Scheme::Https } else { Scheme::Http };
        let set = request
            .set_method(&Method::Post)
            .and_then(|()| request.set_scheme(Some(&scheme)))
            .and_then(|()| request.set_authority(Some(&uri.authority)))
            .and_then(|()| request.set_path_with_query(Some(&uri.path)));
        set.map_err(|()| "config.uri cannot be asked".to_owned())?;
        Ok(request)
    }

    fn options(settings: &Settings) -> RequestOptions {
        let options = RequestOptions::new();
        let nanos = Some(settings.timeout.saturating_mul(1_000_000));
        // A host without one of them has the call's deadline.
        let _ = options.set_connect_timeout(nanos);
        let _ = options.set_first_byte_timeout(nanos);
        let _ = options.set_between_bytes_timeout(nanos);
        options
    }

    fn send(body: OutgoingBody, question: &[u8]) -> Result<(), String> {
        let stream = body.write().map_err(|()| "the request's body was taken".to_owned())?;
        for chunk in question.chunks(CHUNK) {
            // Whoever does not read the question to its end may still answer it.
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
        drop(stream);
        OutgoingBody::finish(body, None).map_err(failed)
    }

    fn read(answer: &IncomingResponse) -> Result<Vec<u8>, String> {
        let status = answer.status();
        if status != 200 {
            return Err(format!("it answered with status {status}"));
        }
        let body = answer.consume().map_err(|()| "its body was taken".to_owned())?;
        let stream = body.stream().map_err(|()| "its body was taken".to_owned())?;
        let mut bytes = Vec::new();
        loop {
            match stream.blocking_read(ANSWER as u64) {
                Ok(more) => bytes.extend(more),
                Err(StreamError::Closed) => return Ok(bytes),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(format!("its answer broke off: {}", error.to_debug_string()));
                }
            }
            if bytes.len() > ANSWER {
                return Err(format!("its answer has more than {ANSWER} bytes"));
            }
        }
    }

    fn failed(error: ErrorCode) -> String {
        match error {
            ErrorCode::HttpRequestDenied => {
                "its host is not granted: write `grant = [\"http:HOST:PORT\"]` under [plugin.http]".to_owned()
            }
            ErrorCode::ConnectionTimeout
            | ErrorCode::ConnectionReadTimeout
            | ErrorCode::HttpResponseTimeout => "it did not answer within config.timeout".to_owned(),
            ErrorCode::ConnectionRefused => "the connection was refused".to_owned(),
            ErrorCode::DnsError(_) | ErrorCode::DnsTimeout | ErrorCode::DestinationNotFound => {
                "its host is not known".to_owned()
            }
            other => format!("{other:?}"),
        }
    }
}
