// SPDX-License-Identifier: Apache-2.0
//
// Makes the requests of the OCI distribution protocol that Push and Pull need: with authentication,
// retries and limits, and many at the same time.
//
// The registry may be hostile: no response takes more memory than the caller expects, credentials
// are sent only to it and to its token server, and text from the registry is not trusted in
// messages.

#ifndef MSB_SRC_REGISTRY_REGISTRY_CLIENT_H_
#define MSB_SRC_REGISTRY_REGISTRY_CLIENT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "msb/context.h"
#include "msb/registry.h"

namespace msb::registry {

// A BlobDescriptor identifies a blob by the digest and the size of its bytes.
struct BlobDescriptor {
  std::string digest;  // "sha256:…"
  std::uint64_t size = 0;

  bool operator==(const BlobDescriptor&) const = default;
};

// A manifest or index that the registry holds.
struct RemoteDocument {
  std::string media_type;
  std::string digest;  // The SHA-256 of bytes, as computed here.
  std::string bytes;
};

// A blob to be put into a repository.
struct NewBlob {
  BlobDescriptor descriptor = {};
  std::shared_ptr<const std::string> bytes = {};  // Null: the blob is only to be mounted.
  // A repository of the same registry that may have the blob, so that it can be mounted instead of
  // sent. Empty: none is known.
  std::string mount_from = {};
};

// How GetManifest and GetSmallBlob read a document.
struct Reading {
  // The document is only an optimization. A failed request is repeated at most once, and the caller
  // continues without the document.
  bool is_hint = false;
  // The access to ask a token server for. Default: read access to the repository.
  std::string scope = {};
};

// kAbsent: the repository does not have the blob, which has no bytes and cannot be mounted.
enum class PutResult { kExisted, kMounted, kSent, kAbsent };

// A RegistryClient makes requests to one registry. All functions but Wake must be called by one
// thread, and done functions are called by that thread, from Run or another function that waits.
//
// Every function that waits throws
//   kCancelled             if the Context ends; it notices this within 100 ms
//   kRegistryUnauthorized  if the registry refuses the credentials, or access without credentials
//   kRegistryUnavailable   if the registry cannot be reached or fails, after all retries
//   kSnapshotIntegrity     if a response is longer than allowed, or breaks the protocol
//   kUnsupportedOperation  if the library was built without libcurl (the constructor)
//   kInvalidConfig         if the registry demands credentials, and docker's configuration is
//                          malformed or names a helper that is not on the PATH
//   kIO                    if it demands credentials that cannot be read
// After that, the requests that were being made may be lost: the client must be destroyed, or
// Recover called.
// Each message names the registry, the repository, the request and the registry's own message.
class RegistryClient {
 public:
  // registry is HOST or HOST:PORT. ctx must outlive the client.
  // If the registry demands credentials, docker's configuration is read, unless the options have
  // credentials, and the credential helper that it names is run.
  // Throws kInvalidArgument if an option is out of range, or if options contradict each other.
  // Throws kIO if ca_file cannot be read.
  RegistryClient(const Context& ctx, std::string registry, const RegistryOptions& options);
  RegistryClient(const RegistryClient&) = delete;
  RegistryClient& operator=(const RegistryClient&) = delete;
  ~RegistryClient();

  // Returns the manifest or index that target, a tag or digest, names in the repository; nullopt if
  // the repository or the target does not exist. If target is a digest, checks it.
  // Throws kSnapshotIntegrity if it is longer than limit bytes.
  std::optional<RemoteDocument> GetManifest(const std::string& repository,
                                            const std::string& target, std::size_t limit,
                                            const Reading& reading = {});
  // Returns the digest of the manifest or index that target names in the repository; nullopt if it
  // does not exist or the registry does not report its digest.
  std::optional<std::string> FindDigest(const std::string& repository, const std::string& target);
  // Stores a manifest or index.
  // Throws kRegistryUnavailable if the registry lacks something that the document names, although
  // that was stored before.
  // Throws kSnapshotIntegrity if the registry reports another digest for what it has stored.
  void PutManifest(const std::string& repository, const std::string& target,
                   const RemoteDocument& document);
  // Like PutManifest, but returns the reason if the registry refuses to store the document under
  // this target, for example because it does not let a tag move. Returns nullopt on success.
  std::optional<std::string> TryPutManifest(const std::string& repository,
                                            const std::string& target,
                                            const RemoteDocument& document);
  // Returns the content of a blob, whose size and digest it checks. The caller must check that
  // descriptor.size is small enough to be held in memory.
  // Throws kSnapshotIntegrity if the blob is missing, or has another size or digest.
  std::string GetSmallBlob(const std::string& repository, const BlobDescriptor& descriptor,
                           const Reading& reading = {});

  // Begin to get or put something, and return without waiting. Up to RegistryOptions::connections
  // requests are made at the same time; further ones wait. done is called when the transfer is
  // complete, and may call functions of the client; errors end Run.
  // What is delivered is checked as by the functions above, but GetBlob checks only the size.
  void GetManifest(const std::string& repository, const std::string& target, std::size_t limit,
                   std::function<void(std::optional<RemoteDocument> document)> done);
  void GetSmallBlob(const std::string& repository, const BlobDescriptor& descriptor,
                    std::function<void(std::string bytes)> done);
  void GetBlob(const std::string& repository, const BlobDescriptor& descriptor,
               std::function<void(std::string bytes)> done);
  // Asks whether the repository has the blob, then tries to mount it, then sends it.
  void PutBlob(const std::string& repository, NewBlob blob,
               std::function<void(PutResult result)> done);
  // Transfers the blobs until finished returns true. Calls finished after each event, each Wake,
  // and at least every 50 ms. Throws the first error.
  void Run(const std::function<bool()>& finished);
  // Makes the client usable after an error. Drops all requests, without calling their done
  // functions. Must not be called while another thread may call Wake.
  void Recover();
  // Makes Run call finished soon. May be called by any thread while the client exists.
  void Wake() noexcept;

  // Called by the client's thread with the number of bytes of bodies that were sent or received
  // since the last call. Default: not called.
  void OnTraffic(std::function<void(std::uint64_t bytes)> on_traffic);

 private:
  class Impl;

  const Context& ctx_;
  const std::string registry_;
  const RegistryOptions options_;
  std::function<void(std::uint64_t bytes)> on_traffic_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_REGISTRY_CLIENT_H_
