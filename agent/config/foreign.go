package config

import (
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// foreign is an argument or a block of Vault Agent, OpenBao Agent or consul-template
// that this agent does without.
type foreign struct {
	name string
	// why says what happens instead.
	why string
	// refused is for what is not safe to leave out.
	refused bool
}

const (
	ofServer     = "it is for Vault's server"
	ofProxy      = "no request is passed on to Vault"
	ofPlainHTTP  = "the listener answers small requests only, and changes nothing"
	ofNewerAgent = "this agent does not make its certificates, and its files would be missing; write a template with pkiCert, or let Vault Agent run that block in a file of its own"
)

// foreignTopLevel stands at the top of files. All but the last two are in the
// configuration that Vault's and OpenBao's agents share with their servers.
var foreignTopLevel = []foreign{
	{name: "administrative_namespace_path", why: ofServer},
	{name: "cloud", why: ofServer},
	{name: "cluster_name", why: ofServer},
	{name: "default_max_request_duration", why: ofServer},
	{name: "entropy", why: ofServer},
	{name: "hsm", why: ofServer},
	{name: "kms", why: ofServer},
	{name: "seal", why: ofServer},
	{name: "user_lockout", why: ofServer},
	{name: "pki_external_ca", why: ofNewerAgent, refused: true}, // Vault Enterprise 2.x
	{name: "tpm_cert", why: ofNewerAgent, refused: true},
}

// foreignOfListener stands in listeners with a role.
var foreignOfListener = []foreign{
	{name: "agent_api", why: "no request stops this agent"},
	{name: "chroot_namespace", why: ofProxy},
	{name: "cluster_address", why: ofServer},
	{name: "cors_allowed_headers", why: ofPlainHTTP},
	{name: "cors_allowed_origins", why: ofPlainHTTP},
	{name: "cors_enabled", why: ofPlainHTTP},
	{name: "custom_response_headers", why: ofPlainHTTP},
	{name: "disable_replication_status_endpoints", why: ofServer},
	{name: "disable_request_limiter", why: ofServer},
	{name: "disable_unauthed_rekey_endpoints", why: ofServer},
	{name: "http_idle_timeout", why: ofPlainHTTP},
	{name: "http_read_header_timeout", why: ofPlainHTTP},
	{name: "http_read_timeout", why: ofPlainHTTP},
	{name: "http_write_timeout", why: ofPlainHTTP},
	{name: "inflight_requests_logging", why: ofServer},
	{name: "max_json_array_element_count", why: ofPlainHTTP},
	{name: "max_json_depth", why: ofPlainHTTP},
	{name: "max_json_object_entry_count", why: ofPlainHTTP},
	{name: "max_json_string_value_length", why: ofPlainHTTP},
	{name: "max_json_token", why: ofPlainHTTP},
	{name: "max_request_duration", why: ofPlainHTTP},
	{name: "max_request_json_memory", why: ofPlainHTTP},
	{name: "max_request_json_strings", why: ofPlainHTTP},
	{name: "max_request_size", why: ofPlainHTTP},
	{name: "profiling", why: ofServer},
	{name: "proxy_api", why: "no request stops this agent"},
	{name: "proxy_protocol_authorized_addrs", why: "the PROXY protocol is not spoken"},
	{name: "proxy_protocol_behavior", why: "the PROXY protocol is not spoken"},
	{name: "purpose", why: "role says what a listener shows"},
	{name: "redact_addresses", why: "no address of Vault's cluster is shown"},
	{name: "redact_cluster_name", why: "no name of a cluster is shown"},
	{name: "redact_version", why: ofServer},
	{name: "require_request_header", why: "no request changes anything or shows a secret"},
	{name: "telemetry", why: "metrics need no token"},
	{name: "tls_cipher_suites", why: "Go chooses them"},
	{name: "tls_disable_client_certs", why: "no client certificate is asked for"},
	{name: "tls_max_version", why: "TLS 1.2 and 1.3 are spoken"},
	{name: "tls_min_version", why: "TLS 1.2 and 1.3 are spoken"},
	{name: "x_forwarded_for_authorized_addrs", why: ofProxy},
	{name: "x_forwarded_for_client_cert_header", why: ofProxy},
	{name: "x_forwarded_for_client_cert_header_decoders", why: ofProxy},
	{name: "x_forwarded_for_hop_skips", why: ofProxy},
	{name: "x_forwarded_for_reject_not_authorized", why: ofProxy},
	{name: "x_forwarded_for_reject_not_present", why: ofProxy},

	{name: "tls_acme_ca_directory", why: ofACME, refused: true},
	{name: "tls_acme_ca_root", why: ofACME, refused: true},
	{name: "tls_acme_cache_path", why: ofACME, refused: true},
	{name: "tls_acme_disable_alpn_challenge", why: ofACME, refused: true},
	{name: "tls_acme_disable_http_challenge", why: ofACME, refused: true},
	{name: "tls_acme_domains", why: ofACME, refused: true},
	{name: "tls_acme_eab_key_id", why: ofACME, refused: true},
	{name: "tls_acme_eab_mac_key", why: ofACME, refused: true},
	{name: "tls_acme_email", why: ofACME, refused: true},
	{name: "tls_acme_key_type", why: ofACME, refused: true},
	{name: "tls_acme_test_ca_directory", why: ofACME, refused: true},
	{name: "tls_client_ca_file", why: ofClientCert, refused: true},
	{name: "tls_require_and_verify_client_cert", why: ofClientCert, refused: true},
}

const (
	ofACME       = "a listener gets no certificate by ACME, and would not speak TLS; write tls_cert_file and tls_key_file"
	ofClientCert = "client certificates are not verified; use listener \"unix\", whose socket_mode and socket_group say who may ask"
)

// foreignSettings stand in the config of a method.
var foreignSettings = map[string]map[string]string{
	MethodCert: {
		"reload":        "certificate files are read again when they change",
		"reload_period": "certificate files are read again when they change",
	},
	MethodJWT: {
		"jwt_read_period":             "the file is read at every login",
		"remove_jwt_follows_symlinks": "of a symbolic link, the link is removed",
	},
}

// foreignMethods are those of Vault's and OpenBao's agents that are not here.
var foreignMethods = []string{"alicloud", "aws", "azure", "cf", "gcp", "kerberos", "ldap", "oci", "tpm"}

// takeForeign takes the arguments and blocks that this agent does without out of a body,
// and reports each. It goes by their names alone, since HCL 1 takes arguments for blocks
// and blocks for arguments.
func (l *loader) takeForeign(body hcl.Body, all []foreign) (rest hcl.Body) {
	schema := &hcl.BodySchema{}
	for _, f := range all {
		schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: f.name})
		schema.Blocks = append(schema.Blocks, hcl.BlockHeaderSchema{Type: f.name})
	}
	content, rest, diags := body.PartialContent(schema)
	l.hcl(diags)
	places := map[string]hcl.Range{}
	for _, block := range content.Blocks {
		if _, seen := places[block.Type]; !seen {
			places[block.Type] = block.DefRange
		}
	}
	for name, attr := range content.Attributes {
		places[name] = attr.NameRange
	}
	for _, f := range all {
		switch at, there := places[f.name]; {
		case !there:
		case f.refused:
			l.at(at, "%s is not supported: %s", f.name, f.why)
		default:
			l.warn(at, "%s has no effect: %s", f.name, f.why)
		}
	}
	return rest
}

// isForeignTopLevel reports whether a block at the top of a file is one of those.
func isForeignTopLevel(name string) bool {
	return slices.ContainsFunc(foreignTopLevel, func(f foreign) bool { return f.name == name })
}
