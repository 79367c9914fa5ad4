// SPDX-License-Identifier: Apache-2.0

#include "tests/registry/token_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "tests/support/certificates.h"

namespace msb::test {
namespace {

using nlohmann::json;

constexpr const char* kService = "registry of the tests";
constexpr const char* kIssuer = "token server of the tests";

// docker-registry accepts a token for this long after it has expired, and before it begins.
constexpr std::chrono::seconds kLeeway(60);

std::string Base64(std::string_view bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                   reinterpret_cast<const unsigned char*>(bytes.data()),
                                   static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

// The alphabet of URLs, without padding.
std::string Base64Url(std::string_view bytes) {
  std::string text = Base64(bytes);
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  text.erase(text.find_last_not_of('=') + 1);
  return text;
}

// Returns the base64 of a certificate, which is what a PEM file has between its markers.
std::string Body(const std::string& pem) {
  const std::size_t begin = pem.find('\n');
  std::string body = pem.substr(begin, pem.find("-----END") - begin);
  std::erase(body, '\n');
  return body;
}

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(FILE* file) const { std::fclose(file); }
};

using Key = std::unique_ptr<EVP_PKEY, Free>;

Key ReadKey(const std::filesystem::path& path) {
  const std::unique_ptr<FILE, Free> file(std::fopen(path.c_str(), "re"));
  Key key(file ? PEM_read_PrivateKey(file.get(), nullptr, nullptr, nullptr) : nullptr);
  if (!key) throw std::runtime_error("cannot read the key of the token server");
  return key;
}

// Returns the RS256 signature.
std::string Sign(EVP_PKEY* key, std::string_view text) {
  const std::unique_ptr<EVP_MD_CTX, Free> context(EVP_MD_CTX_new());
  std::string signature(static_cast<std::size_t>(EVP_PKEY_get_size(key)), '\0');
  std::size_t size = signature.size();
  if (EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size,
                     reinterpret_cast<const unsigned char*>(text.data()), text.size()) != 1) {
    throw std::runtime_error("cannot sign a token");
  }
  signature.resize(size);
  return signature;
}

// Turns "repository:a/b:pull,push" into an entry of the claim "access".
json AccessOf(const std::string& scope) {
  const std::size_t first = scope.find(':');
  const std::size_t last = scope.rfind(':');
  json actions = json::array();
  std::istringstream list(scope.substr(last + 1));
  for (std::string action; std::getline(list, action, ',');) actions.push_back(action);
  return {{"type", scope.substr(0, first)},
          {"name", scope.substr(first + 1, last - first - 1)},
          {"actions", std::move(actions)}};
}

}  // namespace

class TokenServer::Impl {
 public:
  explicit Impl(const TokenServerOptions& options)
      : options_(options),
        certificate_(MakeSigningCertificate(dir_.path())),
        key_(ReadKey(certificate_.key)) {
    server_.Get("/token", [this](const httplib::Request& request, httplib::Response& response) {
      Answer(request, response);
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::jthread([this] { server_.listen_after_bind(); });
    // stop() has no effect before the server runs.
    while (!server_.is_running()) std::this_thread::yield();
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { server_.stop(); }

  TokenAuthority Authority() const {
    return {.realm = fmt::format("http://127.0.0.1:{}/token", port_),
            .service = kService,
            .issuer = kIssuer,
            .certificate = certificate_.certificate};
  }
  std::vector<std::vector<std::string>> Issued() {
    const std::lock_guard lock(mutex_);
    return issued_;
  }
  int Refused() {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

 private:
  void Answer(const httplib::Request& request, httplib::Response& response) {
    const std::lock_guard lock(mutex_);
    if (request.get_header_value("Authorization") !=
        "Basic " + Base64(options_.user + ":" + options_.password)) {
      ++refused_;
      response.status = 401;
      response.set_content(R"({"errors":[{"code":"DENIED","message":"wrong password"}]})",
                           "application/json");
      return;
    }
    std::vector<std::string> scopes;
    for (std::size_t i = 0; i < request.get_param_value_count("scope"); ++i) {
      std::istringstream list(request.get_param_value("scope", i));
      for (std::string scope; std::getline(list, scope, ' ');) scopes.push_back(scope);
    }
    const json document = {{"token", MakeToken(scopes, request.get_param_value("service"))},
                           {"expires_in", options_.announced.value_or(options_.lifetime).count()}};
    response.set_content(document.dump(), "application/json");
    issued_.push_back(std::move(scopes));
  }

  std::string MakeToken(const std::vector<std::string>& scopes, const std::string& service) const {
    const auto now = std::chrono::duration_cast<std::chrono::seconds>(
        std::chrono::system_clock::now().time_since_epoch());
    json access = json::array();
    for (const std::string& scope : scopes) access.push_back(AccessOf(scope));
    const json header = {
        {"typ", "JWT"}, {"alg", "RS256"}, {"x5c", {Body(ReadFile(certificate_.certificate))}}};
    const json claims = {{"iss", kIssuer},
                         {"sub", options_.user},
                         {"aud", service},
                         {"exp", (now + options_.lifetime - kLeeway).count()},
                         {"nbf", (now - kLeeway).count()},
                         {"iat", now.count()},
                         {"jti", fmt::format("token {}", issued_.size())},
                         {"access", std::move(access)}};
    const std::string text = Base64Url(header.dump()) + "." + Base64Url(claims.dump());
    return text + "." + Base64Url(Sign(key_.get(), text));
  }

  const TokenServerOptions options_;
  TempDir dir_;
  const Certificate certificate_;
  const Key key_;
  std::mutex mutex_;
  std::vector<std::vector<std::string>> issued_;  // Guarded by mutex_.
  int refused_ = 0;                               // Guarded by mutex_.
  httplib::Server server_;
  int port_ = 0;
  std::jthread thread_;
};

TokenServer::TokenServer(const TokenServerOptions& options)
    : impl_(std::make_unique<Impl>(options)) {}
TokenServer::~TokenServer() = default;
TokenAuthority TokenServer::Authority() const { return impl_->Authority(); }
std::vector<std::vector<std::string>> TokenServer::Issued() const { return impl_->Issued(); }
int TokenServer::Refused() const { return impl_->Refused(); }

}  // namespace msb::test
