// SPDX-License-Identifier: Apache-2.0

#include "src/registry/registry_client.h"

#include <deque>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/digest.h"
#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/registry/blob_upload.h"
#include "src/registry/protocol.h"
#include "src/registry/reference.h"
#include "src/registry/retry.h"
#include "src/registry/session.h"

namespace msb::registry {
namespace {

// The media types of snapshots, and those of other objects that a tag may name.
constexpr std::string_view kAcceptManifests =
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

void RequireRepository(const std::string& repository) {
  if (IsRepository(repository)) return;
  base::Throw(ErrorKind::kInvalidArgument,
              "repository '{}' is invalid: it must consist of lower-case letters and digits, with "
              "'/', '.', '_', '__' or '-' between them",
              base::Quoted(repository));
}

// Digests often come from documents of the registry.
void RequireDigest(const std::string& digest) {
  if (base::IsDigest(digest, "sha256")) return;
  base::Throw(ErrorKind::kSnapshotIntegrity,
              "blob digest '{}' is invalid: it must be 'sha256:' and 64 lower-case hex digits",
              base::Quoted(digest));
}

void RequireTarget(const std::string& target) {
  if (IsTag(target) || base::IsDigest(target, "sha256")) return;
  base::Throw(ErrorKind::kInvalidArgument,
              "manifest '{}' is invalid: it must be named by a tag or by a SHA-256 digest",
              base::Quoted(target));
}

// Checks the response to the PUT of a document, whose blobs have been stored before.
void CheckStored(const Session& session, const Subject& subject, const RemoteDocument& document,
                 const HttpResponse& response) {
  // The codes are MANIFEST_BLOB_UNKNOWN or BLOB_UNKNOWN for blobs, and the first also for
  // manifests.
  if (response.status == 404 ||
      (response.status == 400 && response.body.find("BLOB_UNKNOWN") != std::string::npos)) {
    base::Throw(ErrorKind::kRegistryUnavailable,
                "{} failed: {}; blobs were removed from the registry during the push, probably by "
                "a garbage collection, so push the snapshot again",
                subject.ToString(), session.Explain(response));
  }
  const std::string_view digest = response.Header("docker-content-digest");
  if (!response.IsSuccess() || !base::IsDigest(digest, "sha256") || document.digest.empty() ||
      digest == document.digest) {
    return;
  }
  base::Throw(ErrorKind::kSnapshotIntegrity,
              "{} failed: the registry has stored it with the digest {}, expected {}; use a "
              "registry, and proxies before it, that do not change manifests",
              subject.ToString(), digest, document.digest);
}

// Returns the media type of a response, without parameters such as "; charset=utf-8".
std::string MediaTypeOf(const HttpResponse& response) {
  std::string_view type = response.Header("content-type");
  type = type.substr(0, type.find(';'));
  return std::string(type.substr(0, type.find_last_not_of(' ') + 1));
}

// Returns the manifest or index in the response to a GET of target; nullopt if target is absent.
std::optional<RemoteDocument> DocumentIn(const Session& session, const Subject& subject,
                                         const std::string& target, HttpResponse response) {
  if (response.status == 404) return std::nullopt;
  if (response.status != 200) ThrowUnexpected(session, subject, response);
  RemoteDocument document{.media_type = MediaTypeOf(response),
                          .digest = base::Sha256Digest(response.body),
                          .bytes = std::move(response.body)};
  if (base::IsDigest(target, "sha256") && document.digest != target) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "{} failed: the digest of the response is {}; the registry is damaged, so push the "
                "snapshot again",
                subject.ToString(), document.digest);
  }
  return document;
}

void CheckDigest(const Session& session, const std::string& repository,
                 const BlobDescriptor& descriptor, const std::string& bytes) {
  const std::string digest = base::Sha256Digest(bytes);
  if (digest == descriptor.digest) return;
  base::Throw(ErrorKind::kSnapshotIntegrity,
              "GET of blob {} in repository '{}' of registry '{}' failed: the digest of the "
              "response is {}; the registry's copy is damaged, and a push does not replace it: "
              "remove the blob from the storage of the registry, then push the snapshot again",
              descriptor.digest, repository, session.registry(), digest);
}

}  // namespace

class RegistryClient::Impl {
 public:
  // A Slot is the right to make requests, one after the other.
  using Slot = std::shared_ptr<void>;

  Impl(const Context& ctx, std::string registry, const RegistryOptions& options)
      : ctx_(ctx),
        free_(std::make_shared<unsigned>(options.connections)),
        session_(ctx, std::move(registry), options) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Session& session() { return session_; }

  void OnTraffic(std::function<void(std::uint64_t bytes)> on_traffic) {
    on_traffic_ = std::move(on_traffic);
  }

  // Returns true if an error may have lost requests.
  bool is_broken() const { return is_broken_; }

  // Works until finished returns true.
  void Run(const std::function<bool()>& finished) {
    for (;;) {
      if (finished()) return;
      ctx_.Check();
      try {
        BeginWaiting();
        session_.Step();
      } catch (...) {
        is_broken_ = true;
        throw;
      }
      const std::uint64_t traffic = session_.TakeTraffic();
      if (traffic != 0 && on_traffic_) on_traffic_(traffic);
    }
  }

  // Makes a request, and waits for the response.
  HttpResponse Ask(const RegistryRequest& request) {
    // Shared, because the response may come after another request has ended Run.
    const auto answer = std::make_shared<std::optional<HttpResponse>>();
    // In front of the waiting blobs, because the caller waits for the response.
    waiting_.push_front([this, request, answer](Slot slot) {
      session_.Send(request, [slot = std::move(slot), answer](HttpResponse response) {
        *answer = std::move(response);
      });
    });
    Run([&] { return answer->has_value(); });
    return std::move(**answer);
  }

  // Begins a request, and returns without waiting.
  void Begin(const RegistryRequest& request, std::function<void(HttpResponse response)> done) {
    waiting_.push_back([this, request, done = std::move(done)](Slot slot) {
      session_.Send(request, [slot = std::move(slot), done](HttpResponse response) mutable {
        slot.reset();  // done may make requests, too.
        done(std::move(response));
      });
    });
  }

  // Makes a request whose response is only an optimization, and repeats it at most once.
  HttpResponse AskForHint(RegistryRequest request) {
    request.reports_failures = true;
    request.reports_refusals = true;
    HttpResponse response = Ask(request);
    if (!IsTransient(response)) return response;
    const auto is_time = std::make_shared<bool>(false);
    int repetitions = 0;
    session_.Repeat(repetitions, request.subject, response, [is_time] { *is_time = true; });
    Run([&] { return *is_time; });
    return Ask(request);
  }

  RegistryRequest NewRequest(HttpMethod method, const std::string& repository,
                             const std::string& what, const std::string& path) const {
    RequireRepository(repository);
    RegistryRequest request = registry::NewRequest(session_, method, repository, what);
    request.url = session_.UrlOf(repository, path);
    return request;
  }

  RegistryRequest NewGet(const std::string& repository, const std::string& target,
                         std::size_t limit) const {
    RequireTarget(target);
    RegistryRequest get =
        NewRequest(HttpMethod::kGet, repository, fmt::format("manifest '{}'", base::Quoted(target)),
                   "manifests/" + target);
    get.headers.emplace_back(kAcceptManifests);
    get.limit = limit;
    return get;
  }

  RegistryRequest NewPut(const std::string& repository, const std::string& target,
                         const RemoteDocument& document) const {
    RequireTarget(target);
    RegistryRequest put =
        NewRequest(HttpMethod::kPut, repository, fmt::format("manifest '{}'", base::Quoted(target)),
                   "manifests/" + target);
    put.headers = {"Content-Type: " + document.media_type};
    put.body = std::make_shared<const std::string>(document.bytes);
    put.scope = PushScope(repository);
    return put;
  }

  void GetBlob(const std::string& repository, const BlobDescriptor& descriptor,
               std::function<void(std::string bytes)> done, const Reading& reading = {}) {
    RequireDigest(descriptor.digest);
    const auto fetch = std::make_shared<Fetch>();
    fetch->request = NewRequest(HttpMethod::kGet, repository, "blob " + descriptor.digest,
                                "blobs/" + descriptor.digest);
    fetch->request.limit = descriptor.size;
    fetch->request.reports_failures = true;
    if (!reading.scope.empty()) fetch->request.scope = reading.scope;
    fetch->size = descriptor.size;
    fetch->is_hint = reading.is_hint;
    fetch->done = std::move(done);
    waiting_.push_back([this, fetch](Slot slot) {
      fetch->slot = std::move(slot);
      FetchBlob(fetch);
    });
  }

  void PutBlob(const std::string& repository, NewBlob blob,
               std::function<void(PutResult result)> done) {
    RequireRepository(repository);
    RequireDigest(blob.descriptor.digest);
    if (!blob.mount_from.empty()) RequireRepository(blob.mount_from);
    waiting_.push_back(
        [this, repository, blob = std::move(blob), done = std::move(done)](Slot slot) {
          const auto upload = std::make_shared<BlobUpload>(
              session_, mounts_, repository, blob, [slot, done](PutResult result) mutable {
                slot.reset();  // done may make requests, too.
                done(result);
              });
          upload->Begin();
        });
  }

 private:
  // A blob that is being fetched.
  struct Fetch {
    RegistryRequest request;
    std::uint64_t size = 0;
    std::function<void(std::string bytes)> done;
    int repetitions = 0;
    int attempts = 0;
    bool is_hint = false;
    Slot slot = nullptr;
  };

  Slot TakeSlot() {
    --*free_;
    return Slot(nullptr, [free = free_](void*) { ++*free; });
  }

  // Begins waiting requests while connections are free.
  void BeginWaiting() {
    while (*free_ > 0 && !waiting_.empty()) {
      const auto begin = std::move(waiting_.front());
      waiting_.pop_front();
      begin(TakeSlot());
    }
  }

  void FetchBlob(const std::shared_ptr<Fetch>& fetch) {
    ++fetch->attempts;
    session_.Send(fetch->request,
                  [this, fetch](HttpResponse response) { OnBlob(fetch, std::move(response)); });
  }

  void OnBlob(const std::shared_ptr<Fetch>& fetch, HttpResponse response) {
    const Subject& subject = fetch->request.subject;
    if (response.status == 200 && response.body.size() < fetch->size && !response.delimited) {
      response.failure = HttpFailure::kConnection;
      response.reason = "the connection was closed before the end of the blob";
    }
    // The statuses 401 and 403 are those of another server, to which the registry redirects.
    if (IsTransient(response) || response.status == 401 || response.status == 403) {
      if (fetch->is_hint && fetch->attempts > 1) ThrowUnexpected(session_, subject, response);
      return session_.Repeat(fetch->repetitions, subject, response,
                             [this, fetch] { FetchBlob(fetch); });
    }
    if (response.status == 404) {
      base::Throw(ErrorKind::kSnapshotIntegrity,
                  "{} failed: {}; the snapshot is incomplete, so push it again", subject.ToString(),
                  session_.Explain(response));
    }
    if (response.status != 200) ThrowUnexpected(session_, subject, response);
    if (response.body.size() != fetch->size) {
      base::Throw(ErrorKind::kSnapshotIntegrity,
                  "{} failed: the blob has {}, expected {}; the snapshot is damaged, so push it "
                  "again",
                  subject.ToString(), base::Count(response.body.size(), "byte"), fetch->size);
    }
    fetch->slot.reset();  // done may make requests, too.
    fetch->done(std::move(response.body));
  }

  const Context& ctx_;
  const std::shared_ptr<unsigned> free_;  // The number of free connections.
  std::function<void(std::uint64_t bytes)> on_traffic_;
  std::deque<std::function<void(Slot slot)>> waiting_;
  MountRecord mounts_;
  Session session_;
  bool is_broken_ = false;
};

RegistryClient::RegistryClient(const Context& ctx, std::string registry,
                               const RegistryOptions& options)
    : ctx_(ctx),
      registry_(std::move(registry)),
      options_(options),
      impl_(std::make_unique<Impl>(ctx_, registry_, options_)) {}
RegistryClient::~RegistryClient() = default;

std::optional<RemoteDocument> RegistryClient::GetManifest(const std::string& repository,
                                                          const std::string& target,
                                                          std::size_t limit,
                                                          const Reading& reading) {
  RegistryRequest get = impl_->NewGet(repository, target, limit);
  if (!reading.scope.empty()) get.scope = reading.scope;
  HttpResponse response = reading.is_hint ? impl_->AskForHint(get) : impl_->Ask(get);
  return DocumentIn(impl_->session(), get.subject, target, std::move(response));
}

void RegistryClient::GetManifest(const std::string& repository, const std::string& target,
                                 std::size_t limit,
                                 std::function<void(std::optional<RemoteDocument> document)> done) {
  const RegistryRequest get = impl_->NewGet(repository, target, limit);
  impl_->Begin(
      get, [this, subject = get.subject, target, done = std::move(done)](HttpResponse response) {
        done(DocumentIn(impl_->session(), subject, target, std::move(response)));
      });
}

std::optional<std::string> RegistryClient::FindDigest(const std::string& repository,
                                                      const std::string& target) {
  RequireTarget(target);
  RegistryRequest head =
      impl_->NewRequest(HttpMethod::kHead, repository,
                        fmt::format("manifest '{}'", base::Quoted(target)), "manifests/" + target);
  head.headers.emplace_back(kAcceptManifests);
  head.scope = PushScope(repository);
  head.reports_failures = true;
  head.reports_refusals = true;
  const HttpResponse response = impl_->Ask(head);
  std::string digest(response.Header("docker-content-digest"));
  if (!response.IsSuccess() || !base::IsDigest(digest, "sha256")) return std::nullopt;
  return digest;
}

void RegistryClient::PutManifest(const std::string& repository, const std::string& target,
                                 const RemoteDocument& document) {
  const RegistryRequest put = impl_->NewPut(repository, target, document);
  const HttpResponse response = impl_->Ask(put);
  CheckStored(impl_->session(), put.subject, document, response);
  if (!response.IsSuccess()) ThrowUnexpected(impl_->session(), put.subject, response);
}

std::optional<std::string> RegistryClient::TryPutManifest(const std::string& repository,
                                                          const std::string& target,
                                                          const RemoteDocument& document) {
  RegistryRequest put = impl_->NewPut(repository, target, document);
  put.reports_refusals = true;
  const HttpResponse response = impl_->Ask(put);
  CheckStored(impl_->session(), put.subject, document, response);
  if (response.IsSuccess()) return std::nullopt;
  return fmt::format("{} failed: {}", put.subject.ToString(), impl_->session().Explain(response));
}

std::string RegistryClient::GetSmallBlob(const std::string& repository,
                                         const BlobDescriptor& descriptor, const Reading& reading) {
  const auto blob = std::make_shared<std::optional<std::string>>();
  impl_->GetBlob(
      repository, descriptor, [blob](std::string bytes) { *blob = std::move(bytes); }, reading);
  impl_->Run([&] { return blob->has_value(); });
  CheckDigest(impl_->session(), repository, descriptor, **blob);
  return std::move(**blob);
}

void RegistryClient::GetSmallBlob(const std::string& repository, const BlobDescriptor& descriptor,
                                  std::function<void(std::string bytes)> done) {
  impl_->GetBlob(repository, descriptor,
                 [this, repository, descriptor, done = std::move(done)](std::string bytes) {
                   CheckDigest(impl_->session(), repository, descriptor, bytes);
                   done(std::move(bytes));
                 });
}

void RegistryClient::GetBlob(const std::string& repository, const BlobDescriptor& descriptor,
                             std::function<void(std::string bytes)> done) {
  impl_->GetBlob(repository, descriptor, std::move(done));
}

void RegistryClient::PutBlob(const std::string& repository, NewBlob blob,
                             std::function<void(PutResult result)> done) {
  impl_->PutBlob(repository, std::move(blob), std::move(done));
}

void RegistryClient::Run(const std::function<bool()>& finished) { impl_->Run(finished); }

void RegistryClient::Recover() {
  if (!impl_->is_broken()) return;
  impl_ = std::make_unique<Impl>(ctx_, registry_, options_);
  impl_->OnTraffic(on_traffic_);
}

void RegistryClient::Wake() noexcept { impl_->session().Wake(); }

void RegistryClient::OnTraffic(std::function<void(std::uint64_t bytes)> on_traffic) {
  on_traffic_ = std::move(on_traffic);
  impl_->OnTraffic(on_traffic_);
}

}  // namespace msb::registry
