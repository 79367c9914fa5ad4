// SPDX-License-Identifier: Apache-2.0
//
// Remembers in a file (base::Home::RegistriesFile) to which repositories snapshots were pushed and
// from which they were pulled. A push of a child to another repository of the same registry can
// then mount blobs instead of sending them.

#ifndef MSB_SRC_REGISTRY_ORIGINS_H_
#define MSB_SRC_REGISTRY_ORIGINS_H_

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/digest.h"

namespace msb::registry {

// The file only saves time: if it cannot be read it counts as empty, and a failure to write it is
// logged. Several processes may use it.
class Origins {
 public:
  Origins(std::filesystem::path file, std::function<void(std::string_view)> log);

  // Returns the repositories of this registry that may have the snapshot, the last used first.
  std::vector<std::string> Find(std::string_view registry, const base::Digest& snapshot) const;
  // Adds the repository to the origins of these snapshots. At most 1,024 pairs of a snapshot and a
  // repository are kept, the last used ones.
  void Add(const std::string& registry, const std::string& repository,
           const std::vector<base::Digest>& snapshots) noexcept;

 private:
  const std::filesystem::path file_;
  const std::function<void(std::string_view)> log_;
};

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_ORIGINS_H_
