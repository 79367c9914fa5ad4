// SPDX-License-Identifier: Apache-2.0
//
// Names the source of snapshots in messages, which is an archive or a registry.

#ifndef MSB_SRC_ARCHIVE_SOURCE_WORDS_H_
#define MSB_SRC_ARCHIVE_SOURCE_WORDS_H_

#include <string>
#include <string_view>

namespace msb::archive {

// The SourceWords are the parts of messages that depend on the source. The examples are those of an
// archive.
struct SourceWords {
  std::string noun;      // The source: "the archive".
  std::string part;      // The kind of its parts, before the quoted name of one: "archive entry".
  std::string identity;  // What the digest of a manifest must match: "the name of its directory".
  // What to do if the source is damaged: "copy or export the archive again".
  std::string next_step;
  // What to do if a directory exists: "import elsewhere or under another name".
  std::string elsewhere;
  // What to do if the source and the receiver lack a snapshot that another one is backed by:
  // "import that snapshot first, or export the archive again without 'since'".
  std::string complete;
  // What to do after a snapshot was squashed at the sender: "export the result".
  std::string resend;
};

// Returns the words for an archive.
const SourceWords& ArchiveWords();

// Throws kSnapshotIntegrity with a message that the part of this name has this problem.
[[noreturn]] void RefusePart(const SourceWords& words, std::string_view name,
                             std::string_view problem);

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_SOURCE_WORDS_H_
