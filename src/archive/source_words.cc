// SPDX-License-Identifier: Apache-2.0

#include "src/archive/source_words.h"

#include "src/base/text.h"
#include "src/base/throw.h"

namespace msb::archive {

const SourceWords& ArchiveWords() {
  static const SourceWords words = {
      .noun = "the archive",
      .part = "archive entry",
      .identity = "the name of its directory",
      .next_step = "copy or export the archive again",
      .elsewhere = "import elsewhere or under another name",
      .complete = "import that snapshot first, or export the archive again without 'since'",
      .resend = "export the result"};
  return words;
}

void RefusePart(const SourceWords& words, std::string_view name, std::string_view problem) {
  base::Throw(ErrorKind::kSnapshotIntegrity, "{} '{}' {}; {}", words.part, base::Quoted(name),
              problem, words.next_step);
}

}  // namespace msb::archive
