// SPDX-License-Identifier: Apache-2.0
//
// Puts one blob into a repository.

#ifndef MSB_SRC_REGISTRY_BLOB_UPLOAD_H_
#define MSB_SRC_REGISTRY_BLOB_UPLOAD_H_

#include <functional>
#include <memory>
#include <string>

#include "src/registry/registry_client.h"
#include "src/registry/registry_request.h"

namespace msb::registry {

class Session;

// A BlobUpload asks whether the repository has a blob (HEAD). If not, it begins an upload (POST),
// in response to which the registry may mount the blob from another repository. If the registry
// does not, it sends the blob (PUT) to the URL that the registry named. If the PUT fails, it begins
// another upload.
class BlobUpload : public std::enable_shared_from_this<BlobUpload> {
 public:
  using Done = std::function<void(PutResult result)>;

  // The session must outlive the upload.
  BlobUpload(Session& session, std::string repository, NewBlob blob, Done done);

  // The upload keeps itself alive until it is complete.
  void Begin();

 private:
  void BeginUpload();
  void OnUploadBegun(const HttpResponse& response);
  void SendTo(const Url& location);
  void OnSent(const HttpResponse& response);
  // Returns a request for this blob. what describes it in messages.
  RegistryRequest NewRequest(HttpMethod method, std::string_view what) const;
  bool MayMount() const { return !blob_.mount_from.empty() && !mount_failed_; }

  Session& session_;
  const std::string repository_;
  NewBlob blob_;
  const Done done_;
  bool mount_failed_ = false;
  int repetitions_ = 0;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_BLOB_UPLOAD_H_
