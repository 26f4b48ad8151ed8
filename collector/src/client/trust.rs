//! Whom a client believes that it is the collector: the authorities of a file, one authority by its pin, or
//! those of the system.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_shared::token::Pin;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring::default_provider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::ClientError;

/// Where Debian and its kin keep the authorities that the system trusts.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub ca_file: Option<PathBuf>,
    /// As it stands at the end of a join token.
    pub ca_pin: Option<Pin>,
}

impl Trust {
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, ClientError> {
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| ClientError::Trust(error.to_string()))?
            .dangerous();
        let verifier: Arc<dyn ServerCertVerifier> = match (&self.ca_file, self.ca_pin) {
            (None, Some(pin)) => Arc::new(Pinned { pin, algorithms: provider.signature_verification_algorithms }),
            (file, None) => by_roots(file.as_deref().unwrap_or(Path::new(SYSTEM)), &provider)?,
            (Some(_), Some(_)) => {
                let text = "ca_file and ca_pin (DUNLIN_CA and DUNLIN_CA_PIN) exclude each other; give one of them";
                return Err(ClientError::Trust(text.to_owned()));
            }
        };
        Ok(Arc::new(builder.with_custom_certificate_verifier(verifier).with_no_client_auth()))
    }
}

/// What to do when TLS says no.
pub(super) fn advice(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => String::from(
            "its certificate is of an authority that is not trusted; set DUNLIN_CA to the collector's ca.pem, or DUNLIN_CA_PIN to the end of a join token",
        ),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            format!("{error}; use a name that its certificate has, or add this one to [tls] names of the collector")
        }
        Error::InvalidCertificate(_) => format!("its certificate is not good: {error}"),
        Error::InvalidMessage(_) => String::from("it speaks no TLS; if that is meant, write http:// for https://"),
        _ => error.to_string(),
    }
}

/// Believes whoever is signed by the authority with this key, which it has to send along.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(|authority| self.is_pinned(authority)).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, self.algorithms.all)?;
        rustls::client::verify_server_name(&leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(String::from("TLS 1.2 is not spoken")))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Pinned {
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        let parsed = webpki::EndEntityCert::try_from(certificate);
        parsed.is_ok_and(|parsed| digest(&SHA256, &parsed.subject_public_key_info()).as_ref() == self.pin.0)
    }
}

fn by_roots(file: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, ClientError> {
    let failed = |why: String| ClientError::Trust(format!("the authorities in {}: {why}", file.display()));
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(found);
    if good == 0 {
        return Err(failed(String::from("none is a certificate")));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    Ok(verifier.map_err(|error| failed(error.to_string()))?)
}
