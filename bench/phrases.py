"""Fifty facts about people and ten questions, the same in four languages: question n is answered by fact n."""

from __future__ import annotations

from typing import Final

from service.settings.languages import Language

FACTS: Final = {
    Language.ENGLISH: """
She lives in one of the old houses by the river.
His sister keeps two horses in a stable outside the town.
She takes tablets against high blood pressure every morning.
He collects old books about the history of seafaring.
Their daughters go to a school with classes in two languages.
She paid the bills for the heating in February.
He repaired the broken windows in the kitchen himself.
Her grandparents sold apples and pears at the market.
The meetings with the tax adviser are on Tuesdays.
She is afraid of spiders and of thunderstorms.
He drinks his coffee without sugar and without milk.
She learned to swim at the age of thirty.
His car broke down on the motorway last winter.
Her brother works as a nurse in a hospital.
They spent their holidays in a tent by the sea.
He is allergic to nuts and to cow's milk.
She plays the violin in a small orchestra.
His favourite colour is dark green.
She moved to the capital because of a new job.
He runs ten kilometres every Sunday.
Her telephone fell into the water.
The dog sleeps under the desk while he works.
She writes short letters to her aunt every month.
He missed the last train and took a taxi.
Their wedding was in a garden in June.
She has not eaten meat for ten years.
He lost his keys in the cinema.
Her office is on the fourth floor.
They planted tomatoes and beans on the balcony.
He is learning to cook with his grandmother.
She prefers films without violence.
His bicycle was stolen in front of the library.
She gave a lecture about bees.
He goes to the dentist twice a year.
Their neighbours have a very loud piano.
She bought a warm coat for the journey to the north.
He forgot the birthday of his best friend.
Her son is building a ship out of wood.
They vote by post because they travel a lot.
He wears glasses for reading only.
She grew up on a farm with sheep.
His boss likes short reports.
She is saving money for a flat of her own.
He once won a prize for photography.
Her knee has hurt since the accident.
They meet for chess on Thursday evenings.
He has a fear of flying and prefers ships.
She translates poems from Polish.
His phone contract ends in autumn.
She sings in the shower.
""",
    Language.GERMAN: """
Sie wohnt in einem der alten Häuser am Fluss.
Seine Schwester hält zwei Pferde in einem Stall vor der Stadt.
Sie nimmt jeden Morgen Tabletten gegen hohen Blutdruck.
Er sammelt alte Bücher über die Geschichte der Seefahrt.
Ihre Töchter gehen auf eine Schule mit Unterricht in zwei Sprachen.
Sie hat im Februar die Rechnungen für die Heizung bezahlt.
Er hat die kaputten Fenster in der Küche selbst repariert.
Ihre Großeltern verkauften Äpfel und Birnen auf dem Markt.
Die Termine mit dem Steuerberater sind dienstags.
Sie hat Angst vor Spinnen und vor Gewittern.
Er trinkt seinen Kaffee ohne Zucker und ohne Milch.
Sie hat mit dreißig Jahren schwimmen gelernt.
Sein Auto blieb im letzten Winter auf der Autobahn liegen.
Ihr Bruder arbeitet als Krankenpfleger in einer Klinik.
Sie verbrachten ihren Urlaub in einem Zelt am Meer.
Er ist allergisch gegen Nüsse und gegen Kuhmilch.
Sie spielt Geige in einem kleinen Orchester.
Seine Lieblingsfarbe ist Dunkelgrün.
Sie zog wegen einer neuen Stelle in die Hauptstadt.
Er läuft jeden Sonntag zehn Kilometer.
Ihr Telefon ist ins Wasser gefallen.
Der Hund schläft unter dem Schreibtisch, während er arbeitet.
Sie schreibt ihrer Tante jeden Monat kurze Briefe.
Er verpasste den letzten Zug und nahm ein Taxi.
Ihre Hochzeit war im Juni in einem Garten.
Sie isst seit zehn Jahren kein Fleisch.
Er hat seine Schlüssel im Kino verloren.
Ihr Büro liegt im vierten Stock.
Sie haben Tomaten und Bohnen auf dem Balkon gepflanzt.
Er lernt bei seiner Großmutter kochen.
Sie mag lieber Filme ohne Gewalt.
Sein Fahrrad wurde vor der Bibliothek gestohlen.
Sie hielt einen Vortrag über Bienen.
Er geht zweimal im Jahr zum Zahnarzt.
Ihre Nachbarn haben ein sehr lautes Klavier.
Sie kaufte einen warmen Mantel für die Reise in den Norden.
Er vergaß den Geburtstag seines besten Freundes.
Ihr Sohn baut ein Schiff aus Holz.
Sie wählen per Brief, weil sie viel reisen.
Er trägt nur zum Lesen eine Brille.
Sie wuchs auf einem Hof mit Schafen auf.
Sein Chef mag kurze Berichte.
Sie spart Geld für eine eigene Wohnung.
Er gewann einmal einen Preis für Fotografie.
Ihr Knie tut seit dem Unfall weh.
Sie treffen sich donnerstags am Abend zum Schach.
Er hat Flugangst und fährt lieber mit dem Schiff.
Sie übersetzt Gedichte aus dem Polnischen.
Sein Handyvertrag endet im Herbst.
Sie singt unter der Dusche.
""",
    Language.SPANISH: """
Vive en una de las casas antiguas junto al río.
Su hermana tiene dos caballos en un establo fuera de la ciudad.
Toma pastillas contra la tensión alta todas las mañanas.
Colecciona libros antiguos sobre la historia de la navegación.
Sus hijas van a una escuela con clases en dos idiomas.
Pagó las facturas de la calefacción en febrero.
Él mismo reparó las ventanas rotas de la cocina.
Sus abuelos vendían manzanas y peras en el mercado.
Las reuniones con el asesor fiscal son los martes.
Tiene miedo de las arañas y de las tormentas.
Toma el café sin azúcar y sin leche.
Aprendió a nadar a los treinta años.
Su coche se averió en la autopista el invierno pasado.
Su hermano trabaja de enfermero en un hospital.
Pasaron las vacaciones en una tienda de campaña junto al mar.
Es alérgico a las nueces y a la leche de vaca.
Toca el violín en una pequeña orquesta.
Su color favorito es el verde oscuro.
Se mudó a la capital por un nuevo trabajo.
Corre diez kilómetros todos los domingos.
Su teléfono se cayó al agua.
El perro duerme debajo del escritorio mientras él trabaja.
Escribe cartas cortas a su tía todos los meses.
Perdió el último tren y cogió un taxi.
Su boda fue en un jardín en junio.
No come carne desde hace diez años.
Perdió las llaves en el cine.
Su oficina está en el cuarto piso.
Plantaron tomates y judías en el balcón.
Está aprendiendo a cocinar con su abuela.
Prefiere las películas sin violencia.
Le robaron la bicicleta delante de la biblioteca.
Dio una conferencia sobre las abejas.
Va al dentista dos veces al año.
Sus vecinos tienen un piano muy ruidoso.
Compró un abrigo caliente para el viaje al norte.
Olvidó el cumpleaños de su mejor amigo.
Su hijo construye un barco de madera.
Votan por correo porque viajan mucho.
Lleva gafas solo para leer.
Creció en una granja con ovejas.
A su jefe le gustan los informes cortos.
Ahorra dinero para un piso propio.
Una vez ganó un premio de fotografía.
Le duele la rodilla desde el accidente.
Se reúnen los jueves por la noche para jugar al ajedrez.
Le da miedo volar y prefiere los barcos.
Traduce poemas del polaco.
Su contrato de móvil termina en otoño.
Canta en la ducha.
""",
    Language.FRENCH: """
Elle habite une des vieilles maisons au bord de la rivière.
Sa sœur a deux chevaux dans une écurie hors de la ville.
Elle prend des comprimés contre la tension élevée tous les matins.
Il collectionne des livres anciens sur l'histoire de la navigation.
Leurs filles vont dans une école avec des cours en deux langues.
Elle a payé les factures de chauffage en février.
Il a réparé lui-même les fenêtres cassées de la cuisine.
Ses grands-parents vendaient des pommes et des poires au marché.
Les rendez-vous avec le conseiller fiscal sont le mardi.
Elle a peur des araignées et des orages.
Il boit son café sans sucre et sans lait.
Elle a appris à nager à trente ans.
Sa voiture est tombée en panne sur l'autoroute l'hiver dernier.
Son frère travaille comme infirmier dans un hôpital.
Ils ont passé leurs vacances dans une tente au bord de la mer.
Il est allergique aux noix et au lait de vache.
Elle joue du violon dans un petit orchestre.
Sa couleur préférée est le vert foncé.
Elle a déménagé dans la capitale pour un nouveau travail.
Il court dix kilomètres tous les dimanches.
Son téléphone est tombé dans l'eau.
Le chien dort sous le bureau pendant qu'il travaille.
Elle écrit de courtes lettres à sa tante tous les mois.
Il a raté le dernier train et a pris un taxi.
Leur mariage a eu lieu dans un jardin en juin.
Elle ne mange plus de viande depuis dix ans.
Il a perdu ses clés au cinéma.
Son bureau est au quatrième étage.
Ils ont planté des tomates et des haricots sur le balcon.
Il apprend à cuisiner avec sa grand-mère.
Elle préfère les films sans violence.
Son vélo a été volé devant la bibliothèque.
Elle a fait un exposé sur les abeilles.
Il va chez le dentiste deux fois par an.
Leurs voisins ont un piano très bruyant.
Elle a acheté un manteau chaud pour le voyage dans le nord.
Il a oublié l'anniversaire de son meilleur ami.
Son fils construit un bateau en bois.
Ils votent par courrier parce qu'ils voyagent beaucoup.
Il ne porte des lunettes que pour lire.
Elle a grandi dans une ferme avec des moutons.
Son chef aime les rapports courts.
Elle économise de l'argent pour un appartement à elle.
Il a gagné une fois un prix de photographie.
Son genou lui fait mal depuis l'accident.
Ils se retrouvent le jeudi soir pour jouer aux échecs.
Il a peur de l'avion et préfère le bateau.
Elle traduit des poèmes du polonais.
Son contrat de téléphone se termine en automne.
Elle chante sous la douche.
""",
}

QUESTIONS: Final = {
    Language.ENGLISH: """
In what kind of house does she live?
Who in his family has a horse?
Which medicine does she swallow at breakfast?
Which book would be a good present for him?
Where does their daughter get her lessons?
Is a bill from the winter still open?
Who mends a window when the glass is broken?
What did the family trade in, an apple or a vegetable?
On which day is the next meeting about taxes?
Which animals scare her?
""",
    Language.GERMAN: """
In was für einem Haus wohnt sie?
Wer in seiner Familie hat ein Pferd?
Welche Medizin schluckt sie zum Frühstück?
Welches Buch wäre ein gutes Geschenk für ihn?
Wo bekommt ihre Tochter Unterricht?
Ist eine Rechnung aus dem Winter noch offen?
Wer bessert ein Fenster aus, wenn das Glas zerbrochen ist?
Womit handelte die Familie, mit einem Apfel oder mit Gemüse?
An welchem Tag ist der nächste Termin wegen der Steuern?
Welche Tiere machen ihr Angst?
""",
    Language.SPANISH: """
¿En qué tipo de casa vive?
¿Quién de su familia tiene un caballo?
¿Qué medicina toma en el desayuno?
¿Qué libro sería un buen regalo para él?
¿Dónde recibe clase su hija?
¿Queda alguna factura del invierno por pagar?
¿Quién arregla una ventana cuando se rompe el cristal?
¿Con qué comerciaba la familia, con una manzana o con verduras?
¿Qué día es la próxima reunión sobre los impuestos?
¿Qué animales le asustan?
""",
    Language.FRENCH: """
Dans quel genre de maison habite-t-elle ?
Qui dans sa famille a un cheval ?
Quel médicament avale-t-elle au petit-déjeuner ?
Quel livre serait un bon cadeau pour lui ?
Où leur fille suit-elle ses cours ?
Reste-t-il une facture de l'hiver à payer ?
Qui remet en état une fenêtre quand la vitre est brisée ?
De quoi la famille faisait-elle commerce, d'une pomme ou de légumes ?
Quel jour est le prochain rendez-vous au sujet des impôts ?
Quels animaux lui font peur ?
""",
}


def lines(text: str) -> list[str]:
    """Return the sentences, one a line."""
    return text.strip().splitlines()
