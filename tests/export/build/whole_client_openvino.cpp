// A volume to its label map with a whole artefact: segment MODEL VOLUME.f32 Z Y X SZ SY SX LABELS
// VOLUME.f32: float32 voxels (Z, Y, X), oriented as the artefact's card says; SZ SY SX: spacing in mm.
#include <fstream>
#include <iostream>
#include <string>

#include <openvino/openvino.hpp>

int main(int count, char** words) {
    if (count != 10) {
        std::cerr << "usage: segment MODEL VOLUME.f32 Z Y X SZ SY SX LABELS\n";
        return 2;
    }
    try {
        ov::Core core;
        auto model = core.compile_model(words[1], "CPU", ov::hint::inference_precision(ov::element::f32));
        ov::Tensor volume(ov::element::f32, {1, std::stoul(words[3]), std::stoul(words[4]), std::stoul(words[5])});
        std::ifstream file(words[2], std::ios::binary);
        file.read(static_cast<char*>(volume.data()), volume.get_byte_size());
        if (!file || file.peek() != EOF) throw std::runtime_error(std::string(words[2]) + ": has another size");
        float spacing[3] = {std::stof(words[6]), std::stof(words[7]), std::stof(words[8])};

        ov::InferRequest request = model.create_infer_request();
        request.set_tensor("volume", volume);
        request.set_tensor("spacing", ov::Tensor(ov::element::f32, {3}, spacing));
        request.infer();

        ov::Tensor labels = request.get_tensor("labels");
        std::ofstream(words[9], std::ios::binary).write(static_cast<const char*>(labels.data()), labels.get_byte_size());
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
