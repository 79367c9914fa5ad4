// SPDX-License-Identifier: Apache-2.0
//
// A LayoutGuess holds the layouts that an archive may have, judging by the paths that have arrived.

#ifndef MSB_SRC_ARCHIVE_LAYOUT_GUESS_H_
#define MSB_SRC_ARCHIVE_LAYOUT_GUESS_H_

#include "src/archive/member.h"

namespace msb::archive {

class LayoutGuess {
 public:
  // Keeps only the layouts whose argument is true. Returns false if no layout is left.
  [[nodiscard]] bool Narrow(bool legacy, bool inventory, bool layered) {
    legacy_ &= legacy;
    inventory_ &= inventory;
    layered_ &= layered;
    return legacy_ || inventory_ || layered_;
  }

  bool MayBe(Layout layout) const {
    switch (layout) {
      case Layout::kLegacy:
        return legacy_;
      case Layout::kInventory:
        return inventory_;
      case Layout::kLayered:
        break;
    }
    return layered_;
  }

  // Returns the layout. It is certain once a manifest or a disk has arrived.
  Layout Get() const {
    if (legacy_) return Layout::kLegacy;
    return inventory_ ? Layout::kInventory : Layout::kLayered;
  }

 private:
  bool legacy_ = true;
  bool inventory_ = true;
  bool layered_ = true;
};

}  // namespace msb::archive

#endif  // MSB_SRC_ARCHIVE_LAYOUT_GUESS_H_
