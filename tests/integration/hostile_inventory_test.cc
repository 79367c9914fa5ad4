// SPDX-License-Identifier: Apache-2.0
//
// Inventories that do not match the content of their archive, with one false value each.

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/import_home.h"

namespace msb::test {
namespace {

using Pointer = Json::json_pointer;

// Appends pointers to all values in the document, at any depth, except the document itself.
void Walk(const Json& value, const Pointer& at, std::vector<Pointer>& found) {
  if (!at.empty()) found.push_back(at);
  if (value.is_object()) {
    for (const auto& [key, child] : value.items()) Walk(child, at / key, found);
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) Walk(value[i], at / i, found);
  }
}

// Returns pointers into the document. Of several entries of one kind only the first is included,
// and of a map only one range, because the others are read in the same way.
std::vector<Pointer> PointersOf(const Json& document) {
  std::vector<Pointer> found;
  Walk(document, Pointer(), found);
  std::set<std::string> kinds;
  for (std::size_t i = 0; i < document["entries"].size(); ++i) {
    const bool is_first = kinds.insert(document["entries"][i]["kind"]).second;
    const std::string entry = "/entries/" + std::to_string(i) + "/";
    std::erase_if(found, [&](const Pointer& at) {
      const std::string path = at.to_string();
      if (!path.starts_with(entry)) return false;
      return !is_first || (path.find("/sparse_ranges/") != std::string::npos &&
                           path.find("/sparse_ranges/1") == std::string::npos);
    });
  }
  return found;
}

// Returns other values of the same type.
std::vector<Json> OtherValues(const Json& value) {
  if (value.is_string()) {
    const std::string text = value;
    std::string one_off = text;
    one_off.back() = static_cast<char>(one_off.back() ^ 1);
    return {one_off, text + "x"};
  }
  if (value.is_boolean()) return {!value.get<bool>()};
  if (value.is_number()) {
    const std::uint64_t number = value;
    return {number + 1, number - 1, ~std::uint64_t{0}};
  }
  if (value.is_null()) return {"x"};
  if (value.is_array()) {
    Json less = value;
    Json more = value;
    if (value.empty()) return {Json::array({"x"})};
    less.erase(0);
    more.push_back(value.back());
    return {less, more};
  }
  return {};
}

std::vector<Json> OtherTypes(const Json& value) {
  // A number as a string, as a fraction, and negative.
  if (value.is_number()) return {nullptr, value.dump(), value.get<double>() + 0.5, -1};
  if (value.is_string()) return {nullptr, 1, Json::array({value})};
  if (value.is_boolean()) return {nullptr, 1, "true"};
  if (value.is_null()) return {false, Json::object()};
  if (value.is_array()) return {nullptr, Json::object(), "x"};
  return {nullptr, Json::array(), "x"};
}

// Returns true for the values that an importer may accept as they are.
bool IsFree(const Json& inventory, const Pointer& at) {
  const std::string path = at.to_string();
  if (path.starts_with("/suggested_name") || path.starts_with("/extensions/")) return true;
  // With a single snapshot, it cannot be known whether its parents were asked for.
  return path == "/with_parents" && inventory["snapshots"].size() == 1;
}

// Returns true for the values to which a later release may give a meaning unknown to this one.
bool IsFromLater(const Pointer& at) {
  const std::string path = at.to_string();
  return path.starts_with("/requires") || path.starts_with("/completeness") ||
         path.starts_with("/protection_requirements") || path == "/schema";
}

class HostileInventoryTest : public ImportHome {
 protected:
  void ExpectLieRefused(const SampleArchive& archive, const Json& inventory, const Pointer& at) {
    if (IsFromLater(at)) {
      ExpectRefused(archive.TarWith(inventory),
                    {ErrorKind::kSnapshotIntegrity, ErrorKind::kUnsupportedOperation});
    } else {
      ExpectRefused(archive.TarWith(inventory));
    }
  }

  void ExpectAnyLieRefused(const SampleArchive& archive, bool also_of_entries = true) {
    const Json sound = archive.Inventory();
    for (const Pointer& at : PointersOf(sound)) {
      if (!also_of_entries && at.to_string().starts_with("/entries/")) continue;
      const Json& value = sound.at(at);
      std::vector<Json> lies = OtherTypes(value);
      if (!IsFree(sound, at)) {
        for (Json& lie : OtherValues(value)) lies.push_back(std::move(lie));
      } else if (at.to_string() != "/with_parents") {
        continue;
      }
      for (const Json& lie : lies) {
        SCOPED_TRACE(at.to_string() + ": " + lie.dump());
        // Hashes that are recorded need not be required.
        if (at.to_string() == "/requires" && lie == Json::array()) continue;
        Json inventory = sound;
        inventory[at] = lie;
        ExpectLieRefused(archive, inventory, at);
      }
    }
  }

  void ExpectAnyKeyNeeded(const SampleArchive& archive) {
    const Json sound = archive.Inventory();
    for (const Pointer& at : PointersOf(sound)) {
      const Pointer parent = at.parent_pointer();
      if (!sound.at(parent).is_object() || parent.to_string().starts_with("/extensions")) continue;
      SCOPED_TRACE(at.to_string());
      Json inventory = sound;
      inventory[parent].erase(at.back());
      ExpectLieRefused(archive, inventory, at);
    }
  }

  void ExpectNoKeyMore(const SampleArchive& archive) {
    const Json sound = archive.Inventory();
    std::vector<Pointer> objects = PointersOf(sound);
    objects.push_back(Pointer());
    for (const Pointer& at : objects) {
      if (!sound.at(at).is_object() || at.to_string().starts_with("/extensions")) continue;
      SCOPED_TRACE(at.to_string());
      Json inventory = sound;
      inventory[at]["unknown"] = 1;
      ExpectRefused(archive.TarWith(inventory));
    }
  }

  const SampleArchive inventory_ = MakeSampleWithImage(SampleLayout::kInventory);
  const SampleArchive layered_ = MakeSampleArchive(SampleLayout::kLayered);
};

TEST_F(HostileInventoryTest, AnyValueOtherThanItIs) { ExpectAnyLieRefused(inventory_); }

TEST_F(HostileInventoryTest, AnyValueOtherThanItIsOfAChain) {
  ExpectAnyLieRefused(MakeSampleChain(SampleLayout::kInventory), false);
}

TEST_F(HostileInventoryTest, AnyValueOtherThanItIsLayered) { ExpectAnyLieRefused(layered_); }

TEST_F(HostileInventoryTest, AnyKeyMissing) {
  ExpectAnyKeyNeeded(inventory_);
  ExpectAnyKeyNeeded(layered_);
}

TEST_F(HostileInventoryTest, AnyKeyMore) {
  ExpectNoKeyMore(inventory_);
  ExpectNoKeyMore(layered_);
}

TEST_F(HostileInventoryTest, RefusesUnknownRequirements) {
  for (const SampleArchive& archive : {inventory_, layered_}) {
    Json inventory = archive.Inventory();
    inventory["requires"].push_back("x.y");
    inventory["extensions"]["x.y"] = 1;
    ExpectRefused(archive.TarWith(inventory),
                  {ErrorKind::kSnapshotIntegrity, ErrorKind::kUnsupportedOperation});
  }
}

TEST_F(HostileInventoryTest, TextThatIsNoInventory) {
  for (const SampleArchive& archive : {inventory_, layered_}) {
    const std::string sound = archive.Inventory().dump();
    for (const std::string& text :
         {std::string(), std::string("{}"), std::string("null"), std::string("[]"),
          std::string("x"), sound + "x", sound + sound, sound.substr(0, sound.size() - 1),
          "\xef\xbb\xbf" + sound, sound + std::string(1, '\0'),
          "{\"completeness\":\"boot-complete\"," + sound.substr(1),
          std::string(sound).replace(sound.find("sample"), 6,
                                     "sam\xff\xfe"
                                     "e"),
          std::string(1'000'000, '['), std::string(100'000, ' '),
          "{\"extensions\":" + std::string(100'000, '[') + "}"}) {
      SCOPED_TRACE(text.substr(0, 80));
      std::vector<TarEntry> entries = archive.entries;
      entries.push_back({.name = "archive.json", .content = text});
      ExpectRefused(TarArchive(entries));
    }
  }
}

TEST_F(HostileInventoryTest, OfAnotherArchive) {
  for (const SampleLayout layout : {SampleLayout::kInventory, SampleLayout::kLayered}) {
    const SampleArchive one = MakeSampleArchive(layout, {.seed = 1});
    const SampleArchive other = MakeSampleArchive(layout, {.seed = 2});
    ExpectRefused(one.TarWith(other.Inventory()));
    ExpectRefused(one.TarWith(MakeSampleChain(layout).Inventory()));
    ExpectRefused(one.TarWith(MakeSampleWithImage(layout).Inventory()));
    ExpectRefused(MakeSampleChain(layout).TarWith(one.Inventory()));
    ExpectRefused(MakeSampleWithImage(layout).TarWith(one.Inventory()));
    const SampleLayout wrong =
        layout == SampleLayout::kInventory ? SampleLayout::kLayered : SampleLayout::kInventory;
    SampleArchive lying = one;
    lying.layout = wrong;
    ExpectRefused(lying.Tar());
  }
}

// The head of a chain is its last snapshot, regardless of the inventory.
TEST_F(HostileInventoryTest, AParentAsTheHead) {
  for (const SampleLayout layout : {SampleLayout::kInventory, SampleLayout::kLayered}) {
    const SampleArchive chain = MakeSampleChain(layout);
    Json inventory = chain.Inventory();
    inventory["head"] = chain.snapshots[0].id;
    ExpectRefused(chain.TarWith(inventory));
  }
}

// Holes that are listed as data, and data that is listed as holes.
TEST_F(HostileInventoryTest, OfTheSameContentWrittenOtherwise) {
  for (const SampleLayout layout : {SampleLayout::kInventory, SampleLayout::kLayered}) {
    const SampleArchive sparse = MakeSampleArchive(layout, {.sparse = true});
    const SampleArchive dense = MakeSampleArchive(layout, {.sparse = false});
    ExpectRefused(sparse.TarWith(dense.Inventory()));
    ExpectRefused(dense.TarWith(sparse.Inventory()));
  }
}

}  // namespace
}  // namespace msb::test
