//! Server reflection, `grpc.reflection.v1` and `v1alpha`: a caller such as grpcurl asks for the descriptors of what is served.
//! Both versions have the same messages, so one handler does for both.

use std::sync::Arc;

use prost::Message as _;

use super::{CALLS, decode, send};
use crate::app::{Code, Context, Handler, Offers, Refusal, Request};
use crate::codec::grpc::generated::DESCRIPTORS;
use crate::codec::grpc::generated::reflection::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse, server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use crate::message::Kind;

/// Tells of our own files.
#[derive(Clone, Debug)]
pub struct Reflection {
    files: Arc<[File]>,
}

/// A file, none of which imports another.
#[derive(Debug)]
struct File {
    name: String,
    /// As it is sent: a `FileDescriptorProto`.
    descriptor: Vec<u8>,
    services: Vec<String>,
    /// Full names of all that it declares, services and methods included.
    symbols: Vec<String>,
}

/// What is read of `google/protobuf/descriptor.proto`, by its numbers there.
mod descriptor {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct FileSet {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub(super) files: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct File {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) package: String,
        #[prost(message, repeated, tag = "4")]
        pub(super) messages: Vec<Type>,
        #[prost(message, repeated, tag = "5")]
        pub(super) enums: Vec<Named>,
        #[prost(message, repeated, tag = "6")]
        pub(super) services: Vec<Service>,
    }

    /// A message, with those inside it.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Type {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) messages: Vec<Type>,
        #[prost(message, repeated, tag = "4")]
        pub(super) enums: Vec<Named>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Service {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) methods: Vec<Named>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Named {
        #[prost(string, tag = "1")]
        pub(super) name: String,
    }
}

impl File {
    /// Reads a descriptor. What cannot be read declares nothing; ours can, as a test shows.
    fn read(descriptor: Vec<u8>) -> Self {
        let file = descriptor::File::decode(&descriptor[..]).unwrap_or_default();
        let (mut services, mut symbols) = (Vec::new(), Vec::new());
        let scope = file.package;
        for service in file.services {
            let name = format!("{scope}.{}", service.name);
            symbols.extend(service.methods.iter().map(|method| format!("{name}.{}", method.name)));
            symbols.push(name.clone());
            services.push(name);
        }
        symbols.extend(file.enums.iter().map(|one| format!("{scope}.{}", one.name)));
        file.messages.iter().for_each(|message| declare(message, &scope, &mut symbols));
        Self { name: file.name, descriptor, services, symbols }
    }
}

fn declare(message: &descriptor::Type, scope: &str, symbols: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name);
    symbols.extend(message.enums.iter().map(|one| format!("{name}.{}", one.name)));
    message.messages.iter().for_each(|inner| declare(inner, &name, symbols));
    symbols.push(name);
}

impl Default for Reflection {
    fn default() -> Self {
        Self::new()
    }
}

impl Reflection {
    /// Of the files of this program.
    #[must_use]
    pub fn new() -> Self {
        let set = descriptor::FileSet::decode(DESCRIPTORS).unwrap_or_default();
        Self { files: set.files.into_iter().map(File::read).collect() }
    }

    /// All methods, `SERVICE/METHOD`.
    #[cfg(test)]
    pub(super) fn methods(&self) -> Vec<String> {
        let of_a_service = |symbol: &&String| {
            let parent = symbol.rsplit_once('.').map(|(parent, _)| parent);
            self.files.iter().flat_map(|file| &file.services).any(|service| Some(&**service) == parent)
        };
        let symbols = self.files.iter().flat_map(|file| &file.symbols);
        symbols
            .filter(of_a_service)
            .filter_map(|symbol| symbol.rsplit_once('.'))
            .map(|(service, method)| format!("{service}/{method}"))
            .collect()
    }

    fn answer(&self, request: Option<&MessageRequest>) -> MessageResponse {
        let found = match request {
            Some(MessageRequest::ListServices(_)) => {
                let services = self.files.iter().flat_map(|file| &file.services);
                let service = services.map(|name| ServiceResponse { name: name.clone() }).collect();
                return MessageResponse::ListServicesResponse(ListServiceResponse { service });
            }
            Some(MessageRequest::FileByFilename(name)) => self.files.iter().find(|file| file.name == *name),
            Some(MessageRequest::FileContainingSymbol(symbol)) => {
                let symbol = symbol.strip_prefix('.').unwrap_or(symbol);
                self.files.iter().find(|file| file.symbols.iter().any(|name| name == symbol))
            }
            // There are no extensions.
            Some(MessageRequest::FileContainingExtension(_) | MessageRequest::AllExtensionNumbersOfType(_)) => None,
            None => return error(Code::InvalidArgument, "a request asks for nothing that is known here"),
        };
        found.map_or_else(
            || error(Code::NotFound, "there is no such thing here"),
            |file| {
                let file_descriptor_proto = vec![file.descriptor.clone()];
                MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
            },
        )
    }
}

fn error(code: Code, message: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code as i32, error_message: message.to_owned() })
}

impl Handler for Reflection {
    type State = ();

    fn open(&mut self, _state: &mut (), _request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn offers(&self) -> Offers {
        CALLS
    }

    fn message(&mut self, _state: &mut (), _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        let Some(request) = decode::<ServerReflectionRequest>(payload, context) else { return };
        let message_response = Some(self.answer(request.message_request.as_ref()));
        let valid_host = request.host.clone();
        send(&ServerReflectionResponse { valid_host, original_request: Some(request), message_response }, context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::Bench;
    use crate::message::Wire;

    fn ask(request: Option<MessageRequest>) -> MessageResponse {
        let mut bench = Bench::new(Wire::Grpc);
        let asked = ServerReflectionRequest { host: "h".to_owned(), message_request: request };
        bench.message(&mut Reflection::new(), &mut (), Kind::Binary, &asked.encode_to_vec());
        let response = ServerReflectionResponse::decode(&bench.out[5..]).expect("a response");
        assert_eq!((response.original_request, &*response.valid_host), (Some(asked), "h"));
        response.message_response.expect("it says something")
    }

    /// The name of the file that is answered, or the code of the error.
    fn file(request: MessageRequest) -> Result<String, i32> {
        match ask(Some(request)) {
            MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto: files }) => {
                Ok(descriptor::File::decode(&files[0][..]).expect("a descriptor").name)
            }
            MessageResponse::ErrorResponse(error) => Err(error.error_code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn services_are_listed() {
        let MessageResponse::ListServicesResponse(list) = ask(Some(MessageRequest::ListServices(String::new()))) else {
            panic!("a list")
        };
        let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        for name in ["holdline.v1.Edge", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
            assert!(names.iter().any(|there| there == name), "{name} is not in {names:?}");
        }
        assert_eq!(names.len(), 4);
    }

    #[test]
    fn files_are_found_by_their_name_and_by_what_they_declare() {
        let edge = "holdline/v1/edge.proto";
        assert_eq!(file(MessageRequest::FileByFilename(edge.to_owned())).as_deref(), Ok(edge));
        for (symbol, name) in [
            ("holdline.v1.Edge", edge),
            (".holdline.v1.Edge", edge),
            ("holdline.v1.Edge.Connect", edge),
            ("holdline.v1.Cursor", edge),
            ("grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto"),
            ("grpc.reflection.v1alpha.ErrorResponse", "grpc/reflection/v1alpha/reflection.proto"),
        ] {
            assert_eq!(file(MessageRequest::FileContainingSymbol(symbol.to_owned())).as_deref(), Ok(name), "{symbol}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_so() {
        for request in [
            MessageRequest::FileByFilename("edge.proto".to_owned()),
            MessageRequest::FileContainingSymbol("holdline.v1.Other".to_owned()),
            MessageRequest::AllExtensionNumbersOfType("holdline.v1.Cursor".to_owned()),
        ] {
            assert_eq!(file(request), Err(5));
        }
        assert!(matches!(ask(None), MessageResponse::ErrorResponse(error) if error.error_code == 3));
    }
}
