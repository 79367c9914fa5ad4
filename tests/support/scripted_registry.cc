// SPDX-License-Identifier: Apache-2.0

#include "tests/support/scripted_registry.h"

#include <fmt/core.h>
#include <httplib.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "src/base/base64.h"
#include "src/base/digest.h"

namespace msb::test {
namespace {

// Connections that are kept alive occupy a thread of the server each.
constexpr std::size_t kThreads = 24;

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return text;
}

bool Matches(const ScriptedRequest& request, const std::string& method, const std::string& path) {
  if (method != "*" && method != request.method) return false;
  if (!path.ends_with('*')) return path == request.path;
  return request.path.starts_with(path.substr(0, path.size() - 1));
}

ScriptedRequest RequestOf(const httplib::Request& request) {
  ScriptedRequest scripted;
  scripted.method = request.method;
  scripted.body = request.body;
  const std::size_t query = request.target.find('?');
  scripted.path = request.target.substr(0, query);
  if (query != std::string::npos) scripted.query = request.target.substr(query + 1);
  for (const auto& [name, value] : request.headers) {
    scripted.headers.emplace_back(Lower(name), value);
  }
  return scripted;
}

std::string Decode(const std::string& text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      decoded += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

// Returns the values of a parameter of a query or of a form.
std::vector<std::string> Parameters(const std::string& text, const std::string& name) {
  std::vector<std::string> values;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('&', at), text.size());
    const std::string part = text.substr(at, end - at);
    if (part.starts_with(name + "=")) values.push_back(Decode(part.substr(name.size() + 1)));
    at = end + 1;
  }
  return values;
}

std::string Parameter(const std::string& text, const std::string& name) {
  const auto values = Parameters(text, name);
  return values.empty() ? std::string() : values.front();
}

ScriptedAnswer ErrorAnswer(int status, const std::string& code, const std::string& message) {
  return {.status = status,
          .headers = {{"Content-Type", "application/json"}},
          .body = fmt::format(R"({{"errors":[{{"code":"{}","message":"{}"}}]}})", code, message)};
}

}  // namespace

std::string ScriptedRequest::Header(const std::string& name) const {
  for (const auto& [header, value] : headers) {
    if (header == name) return value;
  }
  return {};
}

// The content of a registry, and the answers that a registry gives. Not thread-safe.
class RegistryStore {
 public:
  struct Document {
    std::string media_type;
    std::string bytes;
  };

  std::string AddBlob(const std::string& repository, const std::string& bytes) {
    const std::string digest = base::Sha256Digest(bytes);
    repositories_[repository].blobs[digest] = bytes;
    return digest;
  }

  std::string AddManifest(const std::string& repository, const std::string& target,
                          const Document& document) {
    const std::string digest = base::Sha256Digest(document.bytes);
    repositories_[repository].manifests[digest] = document;
    if (target != digest) repositories_[repository].tags[target] = digest;
    return digest;
  }

  const std::string* FindBlob(const std::string& repository, const std::string& digest) const {
    const auto found = repositories_.find(repository);
    if (found == repositories_.end()) return nullptr;
    const auto blob = found->second.blobs.find(digest);
    return blob == found->second.blobs.end() ? nullptr : &blob->second;
  }

  const Document* FindManifest(const std::string& repository, const std::string& target) const {
    const auto found = repositories_.find(repository);
    if (found == repositories_.end()) return nullptr;
    const auto tag = found->second.tags.find(target);
    const auto document =
        found->second.manifests.find(tag == found->second.tags.end() ? target : tag->second);
    return document == found->second.manifests.end() ? nullptr : &document->second;
  }

  // Answers a request to /v2/NAME/….
  ScriptedAnswer Answer(const ScriptedRequest& request) {
    constexpr std::string_view kRoot = "/v2/";
    if (request.path == kRoot) return {.body = "{}"};
    for (const std::string_view kind :
         {"/manifests/", "/blobs/uploads/", "/blobs/", "/tags/list"}) {
      const std::size_t at = request.path.rfind(kind);
      if (at == std::string::npos || at < kRoot.size()) continue;
      const std::string repository = request.path.substr(kRoot.size(), at - kRoot.size());
      const std::string rest = request.path.substr(at + kind.size());
      if (kind == "/manifests/") return Manifest(request, repository, rest);
      if (kind == "/blobs/uploads/") return Upload(request, repository, rest);
      if (kind == "/tags/list") return Tags(repository);
      const std::string* blob = FindBlob(repository, rest);
      if (blob == nullptr) return ErrorAnswer(404, "BLOB_UNKNOWN", "blob unknown to registry");
      return {.headers = {{"Content-Type", "application/octet-stream"}}, .body = *blob};
    }
    return ErrorAnswer(404, "NAME_UNKNOWN", "repository name not known to registry");
  }

 private:
  struct Repository {
    std::map<std::string, std::string> blobs;
    std::map<std::string, Document> manifests;
    std::map<std::string, std::string> tags;
  };

  ScriptedAnswer Manifest(const ScriptedRequest& request, const std::string& repository,
                          const std::string& target) {
    if (request.method == "PUT") {
      const std::string digest =
          AddManifest(repository, target,
                      {.media_type = request.Header("content-type"), .bytes = request.body});
      return {.status = 201, .headers = {{"Docker-Content-Digest", digest}}};
    }
    const Document* document = FindManifest(repository, target);
    if (document == nullptr) return ErrorAnswer(404, "MANIFEST_UNKNOWN", "manifest unknown");
    return {.headers = {{"Content-Type", document->media_type},
                        {"Docker-Content-Digest", base::Sha256Digest(document->bytes)}},
            .body = document->bytes};
  }

  ScriptedAnswer Upload(const ScriptedRequest& request, const std::string& repository,
                        const std::string& id) {
    if (request.method == "POST") {
      const std::string* mounted =
          FindBlob(Parameter(request.query, "from"), Parameter(request.query, "mount"));
      if (mounted != nullptr) {
        AddBlob(repository, *mounted);
        return {.status = 201};
      }
      uploads_.insert(std::to_string(++last_upload_));
      return {.status = 202,
              .headers = {{"Location", fmt::format("/v2/{}/blobs/uploads/{}?state=x", repository,
                                                   last_upload_)}}};
    }
    if (uploads_.erase(id) == 0) return ErrorAnswer(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    if (base::Sha256Digest(request.body) != Parameter(request.query, "digest")) {
      return ErrorAnswer(400, "DIGEST_INVALID", "digest does not match");
    }
    AddBlob(repository, request.body);
    return {.status = 201};
  }

  ScriptedAnswer Tags(const std::string& repository) const {
    const auto found = repositories_.find(repository);
    if (found == repositories_.end()) return ErrorAnswer(404, "NAME_UNKNOWN", "unknown");
    std::string tags;
    for (const auto& [tag, digest] : found->second.tags) {
      tags += fmt::format(R"({}"{}")", tags.empty() ? "" : ",", tag);
    }
    return {.body = fmt::format(R"({{"name":"{}","tags":[{}]}})", repository, tags)};
  }

  std::map<std::string, Repository> repositories_;
  std::set<std::string> uploads_;
  int last_upload_ = 0;
};

// Checks who makes a request, and grants tokens. Not thread-safe.
class RegistryGuard {
 public:
  void RequireBasic(const std::string& username, const std::string& password) {
    basic_ = "Basic " + base::Base64Encode(username + ":" + password);
  }
  void RequireTokens(ScriptedRegistry::Tokens tokens) { rules_ = std::move(tokens); }
  void RevokeTokens() { granted_.clear(); }

  // Returns the answer to a request that is refused.
  std::optional<ScriptedAnswer> Refuse(const ScriptedRequest& request) const {
    const std::string authorization = request.Header("authorization");
    std::string challenge;
    if (basic_ && authorization != *basic_) challenge = R"(Basic realm="registry")";
    if (rules_ && granted_.count(authorization) == 0) {
      challenge = fmt::format(R"(Bearer realm="{}",service="registry")", rules_->realm);
    }
    if (challenge.empty()) return std::nullopt;
    ScriptedAnswer answer = ErrorAnswer(401, "UNAUTHORIZED", "authentication required");
    answer.headers.emplace_back("WWW-Authenticate", challenge);
    return answer;
  }

  // Answers a request to the token server.
  ScriptedAnswer Grant(const ScriptedRequest& request) {
    if (!rules_ || !MayHaveToken(request)) return ErrorAnswer(401, "UNAUTHORIZED", "who are you?");
    const std::string token = fmt::format("token-{}", ++last_token_);
    granted_.insert("Bearer " + token);
    const std::string expiry =
        rules_->expires_in.empty() ? "" : R"(,"expires_in":)" + rules_->expires_in;
    return {.headers = {{"Content-Type", "application/json"}},
            .body = fmt::format(R"({{"token":"{}"{}}})", token, expiry)};
  }

 private:
  bool MayHaveToken(const ScriptedRequest& request) const {
    if (!rules_->refresh_token.empty()) {
      return request.method == "POST" &&
             Parameter(request.body, "refresh_token") == rules_->refresh_token;
    }
    return rules_->username.empty() ||
           request.Header("authorization") ==
               "Basic " + base::Base64Encode(rules_->username + ":" + rules_->password);
  }

  std::optional<std::string> basic_;
  std::optional<ScriptedRegistry::Tokens> rules_;
  std::set<std::string> granted_;
  int last_token_ = 0;
};

class ScriptedRegistry::Impl {
 public:
  Impl(std::unique_ptr<httplib::Server> server, const std::string& scheme)
      : server_(std::move(server)) {
    server_->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_->set_keep_alive_timeout(1);
    server_->set_tcp_nodelay(true);  // Headers and bodies are sent separately.
    const auto serve = [this](const httplib::Request& request, httplib::Response& response) {
      Serve(RequestOf(request), response);
    };
    server_->Get(".*", serve).Post(".*", serve).Put(".*", serve);
    host = fmt::format("127.0.0.1:{}", server_->bind_to_any_port("127.0.0.1"));
    url = scheme + "://" + host;
    thread_ = std::thread([this] { server_->listen_after_bind(); });
    while (!server_->is_running()) std::this_thread::yield();  // stop() has no effect before.
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    stopping_.Set();
    {
      const std::lock_guard lock(mutex);
      for (const auto& event : awaited_) event->Set();
    }
    server_->stop();
    thread_.join();
  }

  void Add(const std::string& method, const std::string& path, Script script) {
    const std::lock_guard lock(mutex);
    scripts_.push_back({method, path, std::move(script)});
  }

  std::vector<ScriptedRequest> Recorded(const std::string& method, const std::string& path) const {
    const std::lock_guard lock(mutex);
    std::vector<ScriptedRequest> found;
    std::copy_if(requests_.begin(), requests_.end(), std::back_inserter(found),
                 [&](const ScriptedRequest& request) { return Matches(request, method, path); });
    return found;
  }

  bool Await(const std::string& method, const std::string& path, std::size_t count) const {
    std::unique_lock lock(mutex);
    return arrived_.wait_for(lock, std::chrono::minutes(1), [&] {
      return std::count_if(requests_.begin(), requests_.end(), [&](const auto& request) {
               return Matches(request, method, path);
             }) >= static_cast<std::ptrdiff_t>(count);
    });
  }

  std::string host;
  std::string url;
  mutable std::mutex mutex;  // Guards the members below.
  RegistryStore store;
  RegistryGuard guard;

 private:
  struct Scripted {
    std::string method;
    std::string path;
    Script script;
  };

  void Serve(const ScriptedRequest& request, httplib::Response& response) {
    std::vector<Script> scripts;
    {
      const std::lock_guard lock(mutex);
      requests_.push_back(request);
      arrived_.notify_all();
      for (auto scripted = scripts_.rbegin(); scripted != scripts_.rend(); ++scripted) {
        if (Matches(request, scripted->method, scripted->path)) scripts.push_back(scripted->script);
      }
    }
    std::optional<ScriptedAnswer> answer;
    for (const Script& script : scripts) {
      if (!answer) answer = script(request);
    }
    Send(answer ? *std::move(answer) : AnswerCorrectly(request), response);
  }

  ScriptedAnswer AnswerCorrectly(const ScriptedRequest& request) {
    const std::lock_guard lock(mutex);
    if (request.path == "/token") return guard.Grant(request);
    auto refusal = guard.Refuse(request);
    return refusal ? *std::move(refusal) : store.Answer(request);
  }

  void Send(ScriptedAnswer answer, httplib::Response& response) {
    if (answer.after) {
      {
        const std::lock_guard lock(mutex);
        awaited_.push_back(answer.after);
      }
      if (stopping_.WaitFor(std::chrono::milliseconds(0))) answer.after->Set();
      answer.after->Wait();
    }
    response.status = answer.status;
    std::string type = "application/octet-stream";
    for (const auto& [name, value] : answer.headers) {
      if (name == "Content-Type") {
        type = value;
      } else {
        response.headers.emplace(name, value);
      }
    }
    const bool whole = answer.framing == ScriptedAnswer::Framing::kLength && !answer.announced &&
                       answer.drip.count() == 0;
    if (whole) return response.set_content(answer.body, type);
    SendInParts(std::move(answer), type, response);
  }

  void SendInParts(ScriptedAnswer answer, const std::string& type, httplib::Response& response) {
    const auto body = std::make_shared<const std::string>(std::move(answer.body));
    // Returns the part of the body that follows offset bytes; empty at the end.
    const auto part = [this, body, drip = answer.drip,
                       endless = answer.endless](std::size_t offset) {
      if (stopping_.WaitFor(drip)) return std::string();
      if (endless) offset %= body->size();
      return body->substr(std::min(offset, body->size()), drip.count() == 0 ? body->size() : 1);
    };
    if (answer.framing == ScriptedAnswer::Framing::kLength) {
      response.set_content_provider(
          answer.announced.value_or(body->size()), type,
          [part](std::size_t offset, std::size_t length, httplib::DataSink& sink) {
            const std::string bytes = part(offset).substr(0, length);
            return !bytes.empty() && sink.write(bytes.data(), bytes.size());
          });
      return;
    }
    const auto provide = [part](std::size_t offset, httplib::DataSink& sink) {
      const std::string bytes = part(offset);
      if (!bytes.empty()) return sink.write(bytes.data(), bytes.size());
      sink.done();
      return true;
    };
    if (answer.framing == ScriptedAnswer::Framing::kChunked) {
      response.set_chunked_content_provider(type, provide);
    } else {
      response.set_content_provider(type, provide);
    }
  }

  mutable std::condition_variable arrived_;
  std::vector<ScriptedRequest> requests_;
  std::vector<Scripted> scripts_;
  std::vector<std::shared_ptr<Event>> awaited_;
  Event stopping_;
  const std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
};

ScriptedRegistry::ScriptedRegistry()
    : impl_(std::make_unique<Impl>(std::make_unique<httplib::Server>(), "http")) {}
ScriptedRegistry::ScriptedRegistry(const std::string& certificate, const std::string& key)
    : impl_(std::make_unique<Impl>(
          std::make_unique<httplib::SSLServer>(certificate.c_str(), key.c_str()), "https")) {}
ScriptedRegistry::~ScriptedRegistry() = default;

std::string ScriptedRegistry::host() const { return impl_->host; }
std::string ScriptedRegistry::url() const { return impl_->url; }

std::string ScriptedRegistry::AddBlob(const std::string& repository, const std::string& bytes) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->store.AddBlob(repository, bytes);
}

std::string ScriptedRegistry::AddManifest(const std::string& repository, const std::string& tag,
                                          const std::string& media_type, const std::string& bytes) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->store.AddManifest(repository, tag, {.media_type = media_type, .bytes = bytes});
}

std::optional<std::string> ScriptedRegistry::Blob(const std::string& repository,
                                                  const std::string& digest) const {
  const std::lock_guard lock(impl_->mutex);
  const std::string* blob = impl_->store.FindBlob(repository, digest);
  return blob == nullptr ? std::nullopt : std::optional(*blob);
}

std::optional<std::string> ScriptedRegistry::Manifest(const std::string& repository,
                                                      const std::string& target) const {
  const std::lock_guard lock(impl_->mutex);
  const auto* document = impl_->store.FindManifest(repository, target);
  return document == nullptr ? std::nullopt : std::optional(document->bytes);
}

void ScriptedRegistry::On(const std::string& method, const std::string& path, Script script) {
  impl_->Add(method, path, std::move(script));
}

void ScriptedRegistry::Answer(const std::string& method, const std::string& path,
                              ScriptedAnswer answer, int times) {
  const auto left = std::make_shared<std::atomic<int>>(times);
  impl_->Add(method, path, [left, answer = std::move(answer)](const ScriptedRequest&) {
    return (*left)-- > 0 ? std::optional(answer) : std::nullopt;
  });
}

void ScriptedRegistry::RequireBasic(const std::string& username, const std::string& password) {
  const std::lock_guard lock(impl_->mutex);
  impl_->guard.RequireBasic(username, password);
}

void ScriptedRegistry::RequireTokens(Tokens tokens) {
  if (tokens.realm.empty()) tokens.realm = url() + "/token";
  const std::lock_guard lock(impl_->mutex);
  impl_->guard.RequireTokens(std::move(tokens));
}

void ScriptedRegistry::RevokeTokens() {
  const std::lock_guard lock(impl_->mutex);
  impl_->guard.RevokeTokens();
}

std::vector<ScriptedRequest> ScriptedRegistry::Requests() const { return Requests("*", "*"); }

std::vector<ScriptedRequest> ScriptedRegistry::Requests(const std::string& method,
                                                        const std::string& path) const {
  return impl_->Recorded(method, path);
}

bool ScriptedRegistry::AwaitRequests(const std::string& method, const std::string& path,
                                     std::size_t count) const {
  return impl_->Await(method, path, count);
}

}  // namespace msb::test
