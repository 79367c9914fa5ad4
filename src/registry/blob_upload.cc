// SPDX-License-Identifier: Apache-2.0

#include "src/registry/blob_upload.h"

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "src/base/text.h"
#include "src/base/throw.h"
#include "src/registry/protocol.h"
#include "src/registry/retry.h"
#include "src/registry/session.h"

namespace msb::registry {
namespace {

// Returns true if the registry is overloaded or cannot be reached, rather than refusing this
// request.
bool IsOverload(const HttpResponse& response) {
  if (response.failure != HttpFailure::kNone) return true;
  return response.status == 408 || response.status == 429 || response.status == 503;
}

bool IsClientError(const HttpResponse& response) {
  return response.failure == HttpFailure::kNone && response.status / 100 == 4;
}

// Returns the size of the blob that a HEAD has found, if the response has it.
std::optional<std::uint64_t> SizeIn(const HttpResponse& response) {
  const std::string_view text = response.Header("content-length");
  // The length of an encoded body is not that of the blob.
  if (text.empty() || !response.Header("content-encoding").empty()) return std::nullopt;
  std::uint64_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return size;
}

}  // namespace

bool MountRecord::MayWork(const std::string& repository) const {
  constexpr int kMaxFailed = 4;
  const auto found = attempts_.find(repository);
  if (found == attempts_.end()) return true;
  return found->second.any_succeeded || found->second.failed < kMaxFailed;
}

void MountRecord::Add(const std::string& repository, bool succeeded) {
  Attempts& attempts = attempts_[repository];
  attempts.any_succeeded |= succeeded;
  if (!succeeded) ++attempts.failed;
}

BlobUpload::BlobUpload(Session& session, MountRecord& mounts, std::string repository, NewBlob blob,
                       Done done)
    : session_(session),
      mounts_(mounts),
      repository_(std::move(repository)),
      blob_(std::move(blob)),
      done_(std::move(done)) {}

RegistryRequest BlobUpload::NewRequest(HttpMethod method, std::string_view what) const {
  RegistryRequest request = registry::NewRequest(
      session_, method, repository_, fmt::format("{} {}", what, blob_.descriptor.digest));
  request.scope = PushScope(repository_);
  return request;
}

void BlobUpload::Begin() {
  RegistryRequest head = NewRequest(HttpMethod::kHead, "blob");
  head.url = session_.UrlOf(repository_, "blobs/" + blob_.descriptor.digest);
  head.reports_failures = true;
  head.reports_forbidden = true;
  session_.Send(std::move(head), [self = shared_from_this()](const HttpResponse& response) {
    self->OnHead(response);
  });
}

void BlobUpload::OnHead(const HttpResponse& response) {
  const Subject subject = NewRequest(HttpMethod::kHead, "blob").subject;
  if (IsTransient(response)) {
    return session_.Repeat(repetitions_, subject, response,
                           [self = shared_from_this()] { self->Begin(); });
  }
  if (!response.IsSuccess()) {
    // Besides 404, a status that refuses only this request: credentials may permit pushing but not
    // reading, and storage to which the registry redirects often allows only GET.
    if (!IsClientError(response)) ThrowUnexpected(session_, subject, response);
    if (is_damaged_) return done_(PutResult::kSent);
    return BeginUpload();
  }
  const std::uint64_t size = SizeIn(response).value_or(blob_.descriptor.size);
  if (size == blob_.descriptor.size) {
    return done_(is_damaged_ ? PutResult::kSent : PutResult::kExisted);
  }
  if (is_damaged_) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "{} found {}, expected {}, although the blob has been sent again: the registry "
                "keeps its damaged copy; remove the blob from the storage of the registry, then "
                "push the snapshot again",
                subject.ToString(), base::Count(size, "byte"), blob_.descriptor.size);
  }
  // Another repository would lead to the same copy.
  is_damaged_ = true;
  mount_failed_ = true;
  BeginUpload();
}

bool BlobUpload::MayMount() const {
  return !blob_.mount_from.empty() && !mount_failed_ && mounts_.MayWork(blob_.mount_from);
}

void BlobUpload::EndMount(bool succeeded) {
  mounts_.Add(blob_.mount_from, succeeded);
  mount_failed_ = !succeeded;  // Further uploads of this blob need not ask again.
}

void BlobUpload::BeginUpload() {
  is_mount_ = MayMount();
  if (!blob_.bytes && !is_mount_) return done_(PutResult::kAbsent);
  RegistryRequest post = NewRequest(HttpMethod::kPost, "an upload of blob");
  post.url = session_.UrlOf(repository_, "blobs/uploads/");
  post.is_repeated = is_repeated_;
  if (is_mount_) {
    post.url = post.url.WithParameter("mount", blob_.descriptor.digest)
                   .WithParameter("from", blob_.mount_from);
    post.scope += " " + PullScope(blob_.mount_from);
    post.reports_refusals = true;
    post.reports_failures = true;
  }
  session_.Send(std::move(post), [self = shared_from_this()](const HttpResponse& response) {
    self->OnUploadBegun(response);
  });
}

void BlobUpload::OnUploadBegun(const HttpResponse& response) {
  const Subject subject = NewRequest(HttpMethod::kPost, "an upload of blob").subject;
  if (is_mount_ && IsOverload(response)) {
    return session_.Repeat(repetitions_, subject, response,
                           [self = shared_from_this()] { self->BeginUpload(); });
  }
  if (is_mount_ && response.status >= 400) {
    // The registry does not support mounts, or the user must not read the other repository.
    EndMount(false);
    return BeginUpload();
  }
  if (is_mount_ && response.status == 201) {
    EndMount(true);
    return done_(PutResult::kMounted);
  }
  if (response.status != 202) ThrowUnexpected(session_, subject, response);
  if (is_mount_) EndMount(false);
  // The registry removes the upload that it has begun instead of the mount once it has expired.
  if (!blob_.bytes) return done_(PutResult::kAbsent);
  const auto location = response.url.Resolve(response.Header("location"));
  if (response.Header("location").empty() || !location) {
    base::Throw(ErrorKind::kSnapshotIntegrity,
                "{} failed: the answer has no valid URL to upload to; check the configuration of "
                "the registry",
                subject.ToString());
  }
  if (location->scheme != "https" && session_.UrlOf(repository_, "").scheme == "https") {
    base::Throw(ErrorKind::kRegistryUnavailable,
                "{} failed: the registry names a URL to upload to that does not use HTTPS; "
                "configure the URL of the registry in the registry (or in the proxy before it)",
                subject.ToString());
  }
  SendTo(*location);
}

void BlobUpload::SendTo(const Url& location) {
  RegistryRequest put = NewRequest(HttpMethod::kPut, "blob");
  put.url = location.WithParameter("digest", blob_.descriptor.digest);
  put.headers = {"Content-Type: application/octet-stream"};
  put.body = blob_.bytes;
  put.reports_failures = true;
  // Credentials are for the registry only.
  if (!location.SameOrigin(session_.UrlOf(repository_, ""))) put.authorization = "";
  session_.Send(std::move(put), [self = shared_from_this()](const HttpResponse& response) {
    self->OnSent(response);
  });
}

void BlobUpload::OnSent(const HttpResponse& response) {
  if (response.IsSuccess()) {
    // Registries such as docker-registry do not replace a damaged copy.
    if (is_damaged_) return Begin();
    return done_(PutResult::kSent);
  }
  const Subject subject = NewRequest(HttpMethod::kPut, "blob").subject;
  // 404: the registry does not know the upload any more, for example because it was restarted.
  if (!IsTransient(response) && response.status != 404) {
    ThrowUnexpected(session_, subject, response);
  }
  is_repeated_ = true;
  session_.Repeat(repetitions_, subject, response,
                  [self = shared_from_this()] { self->BeginUpload(); });
}

}  // namespace msb::registry
