import json

from weft.data.testing import DatasetContract, image_bytes

IMAGES = {"VG_100K/1.jpg": image_bytes(), "VG_100K_2/2.jpg": image_bytes((1, 2, 3))}


class TestOfficialForm(DatasetContract):
    name = "visual_genome_qa"
    count = 3

    def files(self):
        qas = [
            {"qa_id": k, "image_id": image, "question": "What is it?", "answer": "A cat.", "a_objects": []}
            for k, image in ((10, 1), (11, 2), (12, 1))
        ]
        content = [{"id": 1, "qas": [qas[0], qas[2]]}, {"id": 2, "qas": [qas[1]]}]
        return {"question_answers.json": json.dumps(content), **IMAGES}

    def test_images_are_found_in_both_folders(self, records):
        assert all(record.image.exists() for record in records)
        assert records[0].answers == ("A cat.",)


class TestListForm(DatasetContract):
    name = "visual_genome_qa"
    count = 2

    def files(self):
        rows = [
            {"question": "...?", "answer": "a cat", "image": f"image/{k}.jpg", "dataset": "vg"}
            for k in (1, 2)
        ]
        return {"vg_qa.json": json.dumps(rows), **IMAGES}

    def test_the_answer_is_a_single_text(self, records):
        assert records[1].answers == ("a cat",)
        assert records[1].image.read() == IMAGES["VG_100K_2/2.jpg"]
