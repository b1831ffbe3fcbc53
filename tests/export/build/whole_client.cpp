// A volume to its label map with a whole artefact: segment MODEL VOLUME.f32 Z Y X SZ SY SX LABELS
// VOLUME.f32: float32 voxels (Z, Y, X), oriented as the artefact's card says; SZ SY SX: spacing in mm. Prints the voxels of every class.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <regex>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

int main(int count, char** words) {
    if (count != 10) {
        std::cerr << "usage: segment MODEL VOLUME.f32 Z Y X SZ SY SX LABELS\n";
        return 2;
    }
    try {
        Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "segment");
        Ort::Session session(env, words[1], Ort::SessionOptions());
        Ort::AllocatorWithDefaultOptions allocator;
        auto about = session.GetModelMetadata().LookupCustomMetadataMapAllocated("attunet", allocator);
        if (!about) throw std::runtime_error(std::string(words[1]) + ": is no attunet artefact");

        std::vector<int64_t> shape{1, std::stoll(words[3]), std::stoll(words[4]), std::stoll(words[5])};
        std::vector<float> voxels(shape[1] * shape[2] * shape[3]);
        std::ifstream file(words[2], std::ios::binary);
        file.read(reinterpret_cast<char*>(voxels.data()), voxels.size() * sizeof(float));
        if (!file || file.peek() != EOF) throw std::runtime_error(std::string(words[2]) + ": has another size");
        std::vector<float> spacing{std::stof(words[6]), std::stof(words[7]), std::stof(words[8])};
        const int64_t three = 3;

        auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        Ort::Value inputs[] = {Ort::Value::CreateTensor<float>(memory, voxels.data(), voxels.size(), shape.data(), shape.size()),
                               Ort::Value::CreateTensor<float>(memory, spacing.data(), spacing.size(), &three, 1)};
        const char *in[] = {"volume", "spacing"}, *out[] = {"labels"};
        auto outputs = session.Run(Ort::RunOptions{nullptr}, in, inputs, 2, out, 1);

        const auto* labels = outputs[0].GetTensorData<uint8_t>();
        const size_t size = outputs[0].GetTensorTypeAndShapeInfo().GetElementCount();
        std::ofstream(words[9], std::ios::binary).write(reinterpret_cast<const char*>(labels), size);
        const std::string text = about.get();
        const std::regex classes("\"name\":\"([^\"]*)\",\"value\":([0-9]+)");
        for (std::sregex_iterator found(text.begin(), text.end(), classes), end; found != end; ++found)
            std::cout << (*found)[1] << ": " << std::count(labels, labels + size, uint8_t(std::stoi((*found)[2]))) << "\n";
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
