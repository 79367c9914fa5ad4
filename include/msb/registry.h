// SPDX-License-Identifier: Apache-2.0
//
// The options of Snapshot::Push and Snapshot::Pull, which move snapshots through an OCI registry.
// docs/registry.md describes how to set up a registry; docs/formats.md what is stored in it.

#ifndef MSB_REGISTRY_H_
#define MSB_REGISTRY_H_

#include <string>

#include "msb/export.h"

namespace msb {

// RegistryOptions configures the connection to a registry.
struct RegistryOptions {
  // The user's name and password, or access token. Default: those of config.json in the directory
  // $DOCKER_CONFIG, or ~/.docker if that is not set, and of the credential helpers that the file
  // names; if it has none for the registry, the registry is used without authentication. They are
  // looked up when the registry first demands authentication.
  std::string username = {};
  std::string password = {};
  // A file of PEM certificates; the certificate of the registry must be signed by one of them.
  // Default: the certificates of the system.
  std::string ca_file = {};
  // Uses HTTP instead of HTTPS, so that anyone on the network can read and change the transferred
  // data, and read the password. Default: false. Loopback addresses (localhost, 127.0.0.0/8
  // and ::1) are always reached by HTTP unless ca_file is set.
  bool plain_http = false;
  // The number of requests that are made at the same time, 1 to 64. Default: 8.
  unsigned connections = 8;
  // Maximum number of retries of a request whose connection fails or that the registry answers with
  // 408, 429 or 5xx, 0 to 100. The first retry follows after about half a second; each later delay
  // is twice as long, up to 30 s. After 429 and 503 all requests of the call wait: for that delay,
  // or for the one that the registry asks for (Retry-After) if it is longer. Then fewer requests
  // are made at the same time, and retries limits the number of consecutive pauses without
  // progress. The call fails immediately if the requested delay is more than 5 minutes or ends
  // after the deadline of the call. Default: 5.
  int retries = 5;
};

// The options of Push.
struct SnapshotPushOptions {
  // Includes every snapshot that the snapshot descends from. Those that its disk is backed by are
  // always included. Default: false.
  bool with_parents = false;
  bool with_image = false;  // Includes the base image. Default: false.
  // zstd compression level, 1 to 19; higher is slower and smaller. Default: 3.
  int level = 3;
  RegistryOptions registry = {};
};

// The options of Pull.
struct SnapshotPullOptions {
  // The name of the head and of its directory. The rules of SnapshotCreateOptions::name apply. If
  // the home has the head already, under another name, Pull throws kSnapshotAlreadyExists. Default:
  // the head's identity.
  std::string name = {};
  RegistryOptions registry = {};
};

}  // namespace msb

#endif  // MSB_REGISTRY_H_
