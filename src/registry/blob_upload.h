// SPDX-License-Identifier: Apache-2.0
//
// Puts one blob into a repository.

#ifndef MSB_SRC_REGISTRY_BLOB_UPLOAD_H_
#define MSB_SRC_REGISTRY_BLOB_UPLOAD_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "src/registry/registry_client.h"
#include "src/registry/registry_request.h"

namespace msb::registry {

class Session;

// A MountRecord remembers the repositories from which blobs cannot be mounted, so that Push does
// not try this for every blob.
class MountRecord {
 public:
  // Returns false if several attempts to mount from the repository have failed, and none has
  // succeeded.
  bool MayWork(const std::string& repository) const;
  void Add(const std::string& repository, bool succeeded);

 private:
  struct Attempts {
    int failed = 0;
    bool any_succeeded = false;
  };
  std::map<std::string, Attempts> attempts_;
};

// A BlobUpload asks whether the repository has a blob of the right size (HEAD). If not, or if the
// registry refuses to answer, it begins an upload (POST), in response to which the registry may
// mount the blob from another repository. If the registry does not, it sends the blob (PUT) to the
// URL that the registry named. If the PUT fails, it begins another upload. If the registry had the
// blob with another size, it asks again at the end, and throws kSnapshotIntegrity if the registry
// answers that it has kept its damaged copy.
class BlobUpload : public std::enable_shared_from_this<BlobUpload> {
 public:
  using Done = std::function<void(PutResult result)>;

  // The session and the mounts must outlive the upload.
  BlobUpload(Session& session, MountRecord& mounts, std::string repository, NewBlob blob,
             Done done);

  // The upload keeps itself alive until it is complete.
  void Begin();

 private:
  void OnHead(const HttpResponse& response);
  void BeginUpload();
  void OnUploadBegun(const HttpResponse& response);
  void SendTo(const Url& location);
  void OnSent(const HttpResponse& response);
  // Returns a request for this blob. what describes it in messages.
  RegistryRequest NewRequest(HttpMethod method, std::string_view what) const;
  bool MayMount() const;
  void EndMount(bool succeeded);

  Session& session_;
  MountRecord& mounts_;
  const std::string repository_;
  NewBlob blob_;
  const Done done_;
  bool is_mount_ = false;  // Whether the upload that was begun last asks for a mount.
  bool mount_failed_ = false;
  bool is_damaged_ = false;  // Whether the registry had the blob with another size.
  int repetitions_ = 0;
  bool is_repeated_ = false;  // An upload of this blob has begun before.
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_BLOB_UPLOAD_H_
