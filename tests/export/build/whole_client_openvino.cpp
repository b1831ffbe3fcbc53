// A volume to its label map with a whole artefact: segment MODEL VOLUME.f32 Z Y X SZ SY SX LABELS
// VOLUME.f32: float32 voxels (Z, Y, X), oriented as the artefact's card says; SZ SY SX: spacing in mm.
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>

static std::vector<char> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

int main(int count, char** words) {
    if (count != 10) {
        std::cerr << "usage: segment MODEL VOLUME.f32 Z Y X SZ SY SX LABELS\n";
        return 2;
    }
    try {
        ov::Core core;
        auto model = core.compile_model(words[1], "CPU", ov::hint::inference_precision(ov::element::f32));
        std::vector<char> voxels = read(words[2]);
        ov::Shape shape{1, std::stoul(words[3]), std::stoul(words[4]), std::stoul(words[5])};
        if (voxels.size() != sizeof(float) * ov::shape_size(shape)) throw std::runtime_error("the volume has another size");
        float spacing[3] = {std::stof(words[6]), std::stof(words[7]), std::stof(words[8])};

        ov::InferRequest request = model.create_infer_request();
        request.set_tensor("volume", ov::Tensor(ov::element::f32, shape, voxels.data()));
        request.set_tensor("spacing", ov::Tensor(ov::element::f32, {3}, spacing));
        request.infer();

        ov::Tensor labels = request.get_tensor("labels");
        std::ofstream(words[9], std::ios::binary).write(static_cast<const char*>(labels.data()), labels.get_byte_size());
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
