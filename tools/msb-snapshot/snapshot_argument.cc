// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/snapshot_argument.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

namespace msb::program {
namespace {

constexpr std::string_view kAlgorithm = "sha256:";
constexpr std::size_t kDigestLength = kAlgorithm.size() + 64;
// Fewer digits are rather a mistake, such as "sha256:$D" if D is not set.
constexpr std::size_t kLeastDigits = 4;

bool IsDigest(const std::string& text) { return text.starts_with(kAlgorithm); }

}  // namespace

std::string CompleteDigest(Session& session, const std::string& text) {
  if (!IsDigest(text) || text.size() >= kDigestLength) return text;
  if (text.size() < kAlgorithm.size() + kLeastDigits) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("'{}' is too short for the beginning of a digest; give at least {} "
                            "digits of it",
                            text, kLeastDigits));
  }
  std::set<std::string> digests;
  for (const SnapshotHandle& snapshot : Snapshot::List(session.context(), session.client())) {
    if (snapshot.Digest().starts_with(text)) digests.insert(snapshot.Digest());
  }
  if (digests.size() > 1) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("several snapshots have digests that begin with {}: {}; give more of "
                            "the digest",
                            text, fmt::join(digests, ", ")));
  }
  return digests.empty() ? text : *digests.begin();
}

std::string PathInIndex(Session& session, const std::string& name_or_digest) {
  try {
    return Snapshot::Get(session.context(), name_or_digest, session.client()).Path();
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSnapshotNotFound) throw;
    return {};
  }
}

std::string NameOrPath(Session& session, const std::string& text) {
  const Context ctx = session.context();
  if (IsDigest(text)) {
    return Snapshot::Get(ctx, CompleteDigest(session, text), session.client()).Path();
  }
  try {
    static_cast<void>(Snapshot::Open(ctx, text, session.client()));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kSnapshotNotFound) return text;  // The command reports it.
    std::string path = PathInIndex(session, text);
    if (!path.empty()) return path;
  }
  return text;
}

SnapshotArtifact OpenSnapshot(Session& session, const std::string& text) {
  return Snapshot::Open(session.context(), NameOrPath(session, text), session.client());
}

}  // namespace msb::program
