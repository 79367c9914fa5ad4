// SPDX-License-Identifier: Apache-2.0

#include "src/registry/blob_upload.h"

#include <utility>

#include "src/base/throw.h"
#include "src/registry/protocol.h"
#include "src/registry/retry.h"
#include "src/registry/session.h"

namespace msb::registry {
namespace {

bool IsOtherRefusal(const HttpResponse& response) {
  return response.failure == HttpFailure::kNone && response.status / 100 == 4;
}

}  // namespace

BlobUpload::BlobUpload(Session& session, std::string repository, NewBlob blob, Done done)
    : session_(session),
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
  const Subject subject = head.subject;
  session_.Send(std::move(head),
                [self = shared_from_this(), subject](const HttpResponse& response) {
                  if (response.IsSuccess()) return self->done_(PutResult::kExisted);
                  if (response.status != 404) ThrowUnexpected(self->session_, subject, response);
                  self->BeginUpload();
                });
}

void BlobUpload::BeginUpload() {
  if (!blob_.bytes && !MayMount()) return done_(PutResult::kAbsent);
  RegistryRequest post = NewRequest(HttpMethod::kPost, "an upload of blob");
  post.url = session_.UrlOf(repository_, "blobs/uploads/");
  if (MayMount()) {
    post.url = post.url.WithParameter("mount", blob_.descriptor.digest)
                   .WithParameter("from", blob_.mount_from);
    post.scope += " " + PullScope(blob_.mount_from);
    post.reports_refusals = true;
  }
  session_.Send(std::move(post), [self = shared_from_this()](const HttpResponse& response) {
    self->OnUploadBegun(response);
  });
}

void BlobUpload::OnUploadBegun(const HttpResponse& response) {
  const Subject subject = NewRequest(HttpMethod::kPost, "an upload of blob").subject;
  if (MayMount() && IsOtherRefusal(response)) {
    // The registry does not support mounts, or the user must not read the other repository.
    mount_failed_ = true;
    return BeginUpload();
  }
  if (MayMount() && response.status == 201) return done_(PutResult::kMounted);
  if (response.status != 202) ThrowUnexpected(session_, subject, response);
  mount_failed_ = true;  // Further uploads of this blob need not ask again.
  // The registry removes the upload that it has begun instead of the mount once it has expired.
  if (!blob_.bytes) return done_(PutResult::kAbsent);
  const auto location =
      session_.UrlOf(repository_, "blobs/uploads/").Resolve(response.Header("location"));
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
  if (response.IsSuccess()) return done_(PutResult::kSent);
  const Subject subject = NewRequest(HttpMethod::kPut, "blob").subject;
  // 404: the registry does not know the upload any more, for example because it was restarted.
  if (!IsTransient(response) && response.status != 404) {
    ThrowUnexpected(session_, subject, response);
  }
  session_.Repeat(repetitions_, subject, response,
                  [self = shared_from_this()] { self->BeginUpload(); });
}

}  // namespace msb::registry
